//! How much an allocation, a user, a tenant and everybody may have: claims, rates and how they are shared.

#![allow(clippy::unwrap_used, clippy::wildcard_enum_match_arm)]

mod support;

use std::time::Duration;

use support::*;
use turnd::stun::{Attribute, Method};
use turnd::turn::{Cause, Limit, Refusal, RelayId, Settings, SharedSecret, Transport, Users};

/// What a datagram counts beside its payload.
const HEADERS: u64 = 28;
/// Between two looks at the clock.
const STEP: Duration = Duration::from_millis(10);
const CHANNEL: u16 = 0x4000;

fn secret() -> SharedSecret {
    north().with_claims()
}

/// A machine whose secret vouches for claims, with the limits that `change` sets.
fn machine(change: impl Fn(&mut Settings)) -> Turn {
    Turn::with(|settings| base(settings, change))
}

fn base(settings: &mut Settings, change: impl Fn(&mut Settings)) {
    let mut users = Users::new("turnd");
    users.add_user("ann", "ann-pw");
    users.add_user("bob", "bob-pw");
    users.add_secret(secret()).unwrap();
    settings.users = users;
    change(settings);
}

/// Who has a credential of this name, at the place of this number.
fn issued(place: usize, rest: &str) -> User {
    issued_until(place, rest, UNIX + 86_400)
}

fn issued_until(place: usize, rest: &str, expiry: u64) -> User {
    let name = format!("{expiry}:{rest}");
    let password = secret().password(name.as_bytes());
    let client = format!("198.51.{}.{}:1000", place / 200, place % 200 + 1);
    User::new(&name, &password, udp(&client))
}

/// An allocation with a channel, which sends and is sent to.
struct Call {
    user: User,
    relay: RelayId,
}

impl Call {
    fn start(turn: &mut Turn, mut user: User) -> Self {
        let relay = user.relay(turn);
        assert_eq!(user.bind(turn, CHANNEL, PEER), 0);
        Self { user, relay }
    }

    fn up(&self, turn: &mut Turn, bytes: usize) -> Result<(), Cause> {
        self.user.channel(turn, CHANNEL, PEER, &vec![7; bytes])
    }

    fn down(&self, turn: &mut Turn, bytes: usize) -> Result<(), Cause> {
        let sent = turn.peer_sends(self.relay, PEER, &vec![7; bytes]);
        sent.map(drop)
    }
}

/// Lets everybody send at a rate (in bits a second, headers included) for some seconds, up. What passed of each, in bits
/// a second.
fn passed(turn: &mut Turn, calls: &[(&Call, u64)], lasting: u64) -> Vec<u64> {
    const SIZE: u64 = 1000;
    let mut due = vec![0; calls.len()];
    let mut passed = vec![0; calls.len()];
    let steps = lasting * 1000 / STEP.as_millis() as u64;
    for step in 0..steps {
        turn.pass(STEP);
        // Not always the same first.
        for place in (0..calls.len()).map(|place| (place + step as usize) % calls.len()) {
            let (call, rate) = calls[place];
            due[place] += rate * STEP.as_millis() as u64 / 1000;
            while due[place] >= 8 * (SIZE + HEADERS) {
                due[place] -= 8 * (SIZE + HEADERS);
                if call.up(turn, SIZE as usize).is_ok() {
                    passed[place] += 8 * (SIZE + HEADERS);
                }
            }
        }
    }
    passed.iter().map(|bits| bits / lasting).collect()
}

#[track_caller]
fn about(got: u64, wanted: u64, percent: u64) {
    let off = got.abs_diff(wanted) * 100;
    assert!(off <= wanted * percent, "{got}, not {wanted} ± {percent} %");
}

// What credentials claim

#[test]
fn a_claim_bounds_the_allocations_of_its_person_and_settings_bound_it() {
    let mut turn = machine(|settings| settings.limits.per_user = 3);
    let places = |turn: &mut Turn, rest: &str, from: usize| {
        let codes = (0..5).map(|place| issued(from + place, rest).allocate(turn).code());
        codes.collect::<Vec<_>>()
    };
    assert_eq!(places(&mut turn, "north~~ann~a2", 0), [0, 0, 486, 486, 486]);
    assert_eq!(places(&mut turn, "north~~bob~a9", 10), [0, 0, 0, 486, 486]);
    assert_eq!(places(&mut turn, "north~~cyd~a0", 20), [486; 5]);
    // A person has one count, whatever the credential; each credential has its own word.
    assert_eq!(
        issued(30, "north~~ann~a2~jx").allocate(&mut turn).code(),
        486
    );
    assert_eq!(issued(31, "north~~ann~a3~jy").allocate(&mut turn).code(), 0);
    let rejected = turn.quotas.rejected();
    assert_eq!(rejected[Limit::User.index()], 3 + 2 + 5 + 1);
}

#[test]
fn a_claim_bounds_the_bits_of_each_allocation_in_each_direction() {
    let mut turn = machine(|_| {});
    let limited = Call::start(&mut turn, issued(0, "north~~ann~b80k"));
    let other = Call::start(&mut turn, issued(1, "north~~ann~b80k"));
    let free = Call::start(&mut turn, issued(2, "north~~bob"));
    let calls = [(&limited, 400_000), (&other, 60_000), (&free, 400_000)];
    let got = passed(&mut turn, &calls, 20);
    about(got[0], 80_000, 3);
    about(got[1], 60_000, 1);
    about(got[2], 400_000, 1);
    // The other direction has its own bucket, full by now: half a second of 10 kB/s, and one more.
    let down = (0..100).take_while(|_| limited.down(&mut turn, 972).is_ok());
    assert_eq!(down.count(), 6);
    assert_eq!(limited.down(&mut turn, 972), Err(Cause::Bandwidth));
    assert_eq!(limited.up(&mut turn, 1000), Err(Cause::Bandwidth));
    assert_eq!(free.up(&mut turn, 1000), Ok(()));
}

#[test]
fn the_stricter_of_claim_and_settings_counts() {
    for (claim, settings, wanted) in [
        ("~b80k", 160_000, 80_000),
        ("~b160k", 80_000, 80_000),
        ("", 80_000, 80_000),
    ] {
        let mut turn = machine(|new| new.limits.bandwidth.per_allocation = settings);
        let call = Call::start(&mut turn, issued(0, &format!("north~~ann{claim}")));
        let got = passed(&mut turn, &[(&call, 1_000_000)], 20);
        about(got[0], wanted, 3);
    }
}

#[test]
fn a_claim_of_nothing_lets_nothing_by() {
    let mut turn = machine(|_| {});
    let call = Call::start(&mut turn, issued(0, "north~~ann~b0"));
    // What overdraws the bucket passes once, and takes for ever to pay.
    let got = passed(&mut turn, &[(&call, 1_000_000)], 100);
    assert!(got[0] <= 8 * 1028 / 100, "{got:?}");
}

// Exactly

#[test]
fn a_new_allocation_begins_empty_and_a_long_silence_fills_it_once() {
    let mut turn = machine(|settings| settings.limits.bandwidth.per_allocation = 80_000);
    let call = Call::start(&mut turn, ann());
    let at_once = |turn: &mut Turn| (0..100).take_while(|_| call.up(turn, 972).is_ok()).count();
    assert_eq!(at_once(&mut turn), 1);
    turn.pass(Duration::from_millis(100));
    assert_eq!(at_once(&mut turn), 1);
    turn.pass(Duration::from_millis(500));
    assert_eq!(at_once(&mut turn), 5);
    // Ten hours later it is full, and not fuller: half a second, and one.
    let mut user = call.user.clone();
    for _ in 0..36_000 / 300 {
        turn.wait(seconds(300));
        user.nonce.clear();
        assert_eq!(user.refresh(&mut turn, Some(600)).code(), 0);
        assert_eq!(user.bind(&mut turn, CHANNEL, PEER), 0);
    }
    assert_eq!(at_once(&mut turn), 6);
    assert_eq!(at_once(&mut turn), 0);
}

#[test]
fn limits_change_for_what_runs() {
    let mut turn = machine(|_| {});
    let call = Call::start(&mut turn, issued(0, "north~~ann"));
    let rates = [0, 80_000, 400_000, 0, 80_000];
    for rate in rates {
        turn.reload(|settings| base(settings, |new| new.limits.bandwidth.per_allocation = rate));
        let got = passed(&mut turn, &[(&call, 800_000)], 20);
        let wanted = if rate == 0 { 800_000 } else { rate };
        about(got[0], wanted, 4);
    }
    let mut user = call.user;
    assert_eq!(user.refresh(&mut turn, Some(0)).code(), 0);
}

// What is shared

#[test]
fn the_allocations_of_a_user_share_what_the_user_may() {
    let mut turn = machine(|settings| settings.limits.bandwidth.per_user = 800_000);
    let calls: Vec<_> = (0..4)
        .map(|place| Call::start(&mut turn, issued(place, &format!("north~~ann~j{place}"))))
        .collect();
    let other = Call::start(&mut turn, issued(4, "north~~bob"));
    let wanted = [2_000_000, 900_000, 100_000, 0];
    let mut all: Vec<_> = calls.iter().zip(wanted).collect();
    all.push((&other, 700_000));
    let got = passed(&mut turn, &all, 20);
    about(got[..4].iter().sum(), 800_000, 3);
    about(got[4], 700_000, 1);
}

/// One wants ten times of what there is, one a little.
#[test]
fn of_two_users_the_greedy_one_gets_what_the_other_leaves() {
    let mut turn = machine(|settings| settings.limits.bandwidth.total = 8_000_000);
    let greedy = Call::start(&mut turn, issued(0, "north~~ann"));
    let modest = Call::start(&mut turn, issued(1, "north~~bob"));
    let got = passed(
        &mut turn,
        &[(&greedy, 80_000_000), (&modest, 1_000_000)],
        10,
    );
    about(got[1], 1_000_000, 1);
    about(got[0], 7_000_000, 10);
}

#[test]
fn of_ten_users_nine_get_what_they_want_beside_a_greedy_one() {
    let mut turn = machine(|settings| settings.limits.bandwidth.total = 8_000_000);
    let calls: Vec<_> = (0..10)
        .map(|place| Call::start(&mut turn, issued(place, &format!("north~~user{place}"))))
        .collect();
    let wanted = [
        80_000_000, 500_000, 500_000, 500_000, 500_000, 100_000, 100_000, 100_000, 50_000, 20_000,
    ];
    let all: Vec<_> = calls.iter().zip(wanted).collect();
    let got = passed(&mut turn, &all, 10);
    for place in 1..10 {
        about(got[place], wanted[place], 1 + 1_000_000 / wanted[place]);
    }
    about(got[0], 8_000_000 - wanted[1..].iter().sum::<u64>(), 10);
}

#[test]
fn users_who_want_more_than_an_even_part_get_as_much_as_each_other() {
    let mut turn = machine(|settings| settings.limits.bandwidth.total = 8_000_000);
    let calls: Vec<_> = (0..5)
        .map(|place| Call::start(&mut turn, issued(place, &format!("north~~user{place}"))))
        .collect();
    // The level is 2 Mbit/s: 8 less the 2 of the modest, for three.
    let wanted = [80_000_000, 20_000_000, 4_000_000, 1_000_000, 1_000_000];
    let all: Vec<_> = calls.iter().zip(wanted).collect();
    let got = passed(&mut turn, &all, 20);
    for bits in &got[..3] {
        about(*bits, 2_000_000, 8);
    }
    about(got[3], 1_000_000, 1);
    about(got[4], 1_000_000, 1);
    about(got.iter().sum(), 8_000_000, 6);
}

/// A user with many allocations, of many credentials, is one user.
#[test]
fn who_has_more_allocations_has_no_greater_part() {
    let mut turn = machine(|settings| settings.limits.bandwidth.total = 8_000_000);
    let greedy: Vec<_> = (0..12)
        .map(|place| Call::start(&mut turn, issued(place, &format!("north~~ann~j{place}"))))
        .collect();
    let other = Call::start(&mut turn, issued(20, "north~~bob"));
    let mut all: Vec<_> = greedy.iter().map(|call| (call, 10_000_000)).collect();
    all.push((&other, 10_000_000));
    let got = passed(&mut turn, &all, 10);
    about(got[12], 4_000_000, 6);
    about(got[..12].iter().sum(), 4_000_000, 8);
}

/// Who sends in bursts, to be unknown whenever the level is set, passes no more than there is, and takes nothing from
/// those who keep to their part.
#[test]
fn bursts_break_neither_the_cap_nor_the_others() {
    let mut turn = machine(|settings| settings.limits.bandwidth.total = 8_000_000);
    let pulsing: Vec<_> = (0..20)
        .map(|place| Call::start(&mut turn, issued(place, &format!("north~~pulse{place}"))))
        .collect();
    let steady = Call::start(&mut turn, issued(30, "north~~ann"));
    let (mut bursts, mut steadily, mut refused) = (0, 0, 0);
    for step in 0..2000_u64 {
        turn.pass(STEP);
        // 100 ms on, 100 ms off.
        if step / 10 % 2 == 0 {
            for call in &pulsing {
                bursts += (0..50)
                    .take_while(|_| call.up(&mut turn, 972).is_ok())
                    .count();
            }
        }
        // 240 kbit/s; an even part is 380.
        if step % 3 == 0 && call_passes(&mut turn, &steady, 872) {
            steadily += 1;
        } else if step % 3 == 0 {
            refused += 1;
        }
    }
    let total = (bursts as u64 * 1000 + steadily * 900) * 8 / 20;
    assert!(total <= 8_000_000 + 8_000_000 / 20, "{total}");
    assert!(refused * 100 <= steadily, "{refused} of {steadily} refused");
}

fn call_passes(turn: &mut Turn, call: &Call, bytes: usize) -> bool {
    call.up(turn, bytes).is_ok()
}

#[test]
fn tenants_are_bounded_and_fair_inside() {
    let mut turn = machine(|settings| {
        settings.limits.bandwidth.per_tenant = 800_000;
        settings.limits.bandwidth.total = 8_000_000;
    });
    let names = ["acme~ann", "acme~bob", "other~ann", "~ann"];
    let calls: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(place, name)| Call::start(&mut turn, issued(place, &format!("north~{name}"))))
        .collect();
    let wanted = [4_000_000, 300_000, 600_000, 2_000_000];
    let all: Vec<_> = calls.iter().zip(wanted).collect();
    let got = passed(&mut turn, &all, 20);
    about(got[0], 500_000, 10);
    about(got[1], 300_000, 1);
    about(got[2], 600_000, 1);
    about(got[3], 2_000_000, 1);
    // Each limit has a cause of its own.
    let mut causes = Vec::new();
    for _ in 0..2000 {
        causes.extend(calls[0].up(&mut turn, 972).err());
    }
    causes.dedup();
    assert_eq!(causes, [Cause::TenantBandwidth]);
}

/// Several machines, as several workers are: the user, the tenant and the whole are counted across all of them.
#[test]
fn workers_share_what_is_shared() {
    let settings = |settings: &mut Settings| {
        base(settings, |new| {
            new.limits.bandwidth.total = 8_000_000;
            new.limits.bandwidth.per_user = 3_000_000;
        });
    };
    let mut first = Turn::with(settings);
    let mut second = first.beside(1, settings);
    let here = Call::start(&mut first, issued(0, "north~~ann"));
    let there = Call::start(&mut second, issued(1, "north~~ann"));
    let others = ["bob", "cyd", "dan"].map(|name| {
        let place = 2 + usize::from(name.as_bytes()[0]);
        Call::start(&mut second, issued(place, &format!("north~~{name}")))
    });
    let (mut ann, mut rest) = (0, 0);
    for _ in 0..1000 {
        first.pass(STEP);
        second.pass(STEP);
        for _ in 0..25 {
            ann += u64::from(here.up(&mut first, 972).is_ok());
            ann += u64::from(there.up(&mut second, 972).is_ok());
            for other in &others {
                rest += u64::from(other.up(&mut second, 972).is_ok());
            }
        }
    }
    let bits = |packets: u64| packets * 8000 / 10;
    about(bits(ann), 2_000_000, 8);
    about(bits(rest), 6_000_000, 8);
}

// Ways around

#[test]
fn every_form_of_data_is_counted() {
    for transport in Transport::ALL {
        let mut turn = machine(|settings| settings.limits.bandwidth.per_allocation = 80_000);
        let at = client("198.51.100.1:1000", transport);
        let call = Call::start(&mut turn, ann().at(at));
        turn.pass(seconds(1));
        let (mut in_channel, mut by_send, mut down) = (0, 0, 0);
        for _ in 0..100 {
            in_channel += u64::from(call.up(&mut turn, 972).is_ok());
            by_send += u64::from(call.user.send(&mut turn, PEER, &[7; 972]).is_ok());
            // In the channel, and as Data.
            for peer in [PEER, "52.1.2.3:9"] {
                down += u64::from(turn.peer_sends(call.relay, peer, &[7; 972]).is_ok());
            }
        }
        assert_eq!((in_channel + by_send, down), (6, 6), "{transport:?}");
    }
}

#[test]
fn many_small_datagrams_are_no_way_around() {
    let mut turn = machine(|settings| settings.limits.bandwidth.per_allocation = 80_000);
    let call = Call::start(&mut turn, ann());
    let mut count = 0;
    for _ in 0..1000 {
        turn.pass(STEP);
        count += (0..100)
            .take_while(|_| call.up(&mut turn, 1).is_ok())
            .count() as u64;
    }
    about(count * 8 * 29 / 10, 80_000, 6);
}

#[test]
fn two_families_are_one_allocation() {
    let mut turn = machine(|settings| settings.limits.bandwidth.per_allocation = 80_000);
    let mut ann = ann();
    ann.allocate_with(&mut turn, |writer| {
        writer.u8(Attribute::ADDITIONAL_ADDRESS_FAMILY, 2);
    });
    assert_eq!(ann.permit(&mut turn, &[PEER, PEER_V6]), 0);
    turn.pass(seconds(1));
    let mut count = 0;
    for _ in 0..100 {
        for peer in [PEER, PEER_V6] {
            count += u64::from(ann.send(&mut turn, peer, &[7; 972]).is_ok());
        }
    }
    assert_eq!(count, 6);
}

#[test]
fn allocations_made_one_after_the_other_have_no_more_than_one() {
    let mut turn = machine(|settings| settings.limits.bandwidth.per_user = 80_000);
    let mut got = 0;
    for number in 0..1000 {
        turn.pass(STEP);
        let mut call = Call::start(&mut turn, issued(number % 50, "north~~ann"));
        got += (0..100)
            .take_while(|_| call.up(&mut turn, 972).is_ok())
            .count() as u64;
        let answer = call.user.ask(&mut turn, Method::REFRESH, |writer| {
            writer.u32(Attribute::LIFETIME, 0);
        });
        assert_eq!(answer.code(), 0);
    }
    about(got * 8 * 1000 / 10, 80_000, 3);
}

// Peers

fn new_peer(number: usize) -> String {
    format!("52.9.{}.{}:4000", number / 200, number % 200 + 1)
}

#[test]
fn new_peers_are_counted_and_old_ones_are_not() {
    let mut turn = machine(|settings| settings.limits.new_peers.per_allocation = 6);
    let mut ann = issued(0, "north~~ann");
    assert_eq!(ann.allocate(&mut turn).code(), 0);
    let permit = |turn: &mut Turn, ann: &mut User, numbers: std::ops::Range<usize>| {
        let peers: Vec<_> = numbers.map(new_peer).collect();
        let peers: Vec<_> = peers.iter().map(|peer| &**peer).collect();
        ann.permit(turn, &peers)
    };
    assert_eq!(permit(&mut turn, &mut ann, 0..4), 0);
    // All of them or none; what there is already is not new.
    assert_eq!(permit(&mut turn, &mut ann, 3..7), 403);
    assert_eq!(
        ann.send(&mut turn, &new_peer(4), b"x"),
        Err(Cause::NoPermission)
    );
    assert_eq!(permit(&mut turn, &mut ann, 0..4), 0);
    assert_eq!(ann.bind(&mut turn, CHANNEL, &new_peer(4)), 0);
    assert_eq!(ann.bind(&mut turn, CHANNEL, &new_peer(4)), 0);
    assert_eq!(ann.permit(&mut turn, &[&new_peer(5), &new_peer(5)]), 0);
    assert_eq!(ann.bind(&mut turn, CHANNEL + 1, &new_peer(6)), 403);
    // A sixth of a minute later there may be one more.
    turn.pass(Duration::from_millis(9_999));
    assert_eq!(permit(&mut turn, &mut ann, 6..7), 403);
    turn.pass(Duration::from_millis(1));
    assert_eq!(permit(&mut turn, &mut ann, 6..7), 0);
    assert_eq!(permit(&mut turn, &mut ann, 7..8), 403);
    // Another allocation has a count of its own.
    let mut other = issued(1, "north~~ann");
    assert_eq!(other.allocate(&mut turn).code(), 0);
    assert_eq!(permit(&mut turn, &mut other, 10..16), 0);
    assert_eq!(turn.quotas.rejected()[Limit::NewPeers.index()], 4);
}

#[test]
fn a_user_who_scans_is_stopped_whatever_allocation_it_takes() {
    let mut turn = machine(|settings| settings.limits.new_peers.per_user = 20);
    let mut met = 0;
    for number in 0..200 {
        let mut ann = issued(number, &format!("north~~ann~j{number}"));
        assert_eq!(ann.allocate(&mut turn).code(), 0);
        met += (0..3)
            .filter(|&nth| ann.permit(&mut turn, &[&new_peer(3 * number + nth)]) == 0)
            .count();
        assert_eq!(ann.refresh(&mut turn, Some(0)).code(), 0);
        turn.pass(Duration::from_millis(150));
    }
    // 20 at once and 10 in half a minute.
    assert_eq!(met, 29);
    let mut bob = issued(1, "north~~bob");
    assert_eq!(bob.allocate(&mut turn).code(), 0);
    assert_eq!(bob.permit(&mut turn, &[PEER]), 0);
}

#[test]
fn limits_to_new_peers_change_for_what_runs() {
    let mut turn = machine(|_| {});
    let mut ann = issued(0, "north~~ann");
    assert_eq!(ann.allocate(&mut turn).code(), 0);
    assert_eq!(ann.permit(&mut turn, &[&new_peer(0), &new_peer(1)]), 0);
    turn.reload(|settings| base(settings, |new| new.limits.new_peers.per_user = 1));
    assert_eq!(ann.permit(&mut turn, &[&new_peer(2)]), 0);
    assert_eq!(ann.permit(&mut turn, &[&new_peer(3)]), 403);
    turn.reload(|settings| base(settings, |_| {}));
    assert_eq!(ann.permit(&mut turn, &[&new_peer(3)]), 0);
}

#[test]
fn a_claim_chooses_the_policy_and_an_unknown_one_opens_nothing() {
    let policies = |settings: &mut Settings| {
        settings.peers = peers(&["192.168.0.0/16"], &["52.0.0.0/8"]);
        settings.policies.insert(
            "media".into(),
            peers(
                &["10.1.0.0/16", "169.254.0.0/16"],
                &["53.0.0.0/8", "52.0.0.0/8"],
            ),
        );
        settings
            .policies
            .insert("all".into(), peers(&["0.0.0.0/0", "::/0"], &[]));
    };
    let mut turn = machine(policies);
    let judge = |turn: &mut Turn, place: usize, name: &str| {
        let mut user = issued(place, name);
        assert_eq!(user.allocate(turn).code(), 0, "{name}");
        [
            "192.168.1.1:1",
            "10.1.2.3:1",
            "52.1.2.3:1",
            "53.1.2.3:1",
            "54.1.2.3:1",
            "224.0.0.1:1",
            "203.0.113.1:3478",
        ]
        .map(|peer| user.permit(turn, &[peer]))
    };
    assert_eq!(
        judge(&mut turn, 0, "north~~ann"),
        [0, 403, 403, 0, 0, 403, 403]
    );
    assert_eq!(
        judge(&mut turn, 1, "north~~ann~pmedia"),
        [403, 0, 403, 403, 0, 403, 403]
    );
    // What is never a peer is none by any policy: multicast, and this server.
    assert_eq!(
        judge(&mut turn, 2, "north~~ann~pall"),
        [0, 0, 0, 0, 0, 403, 403]
    );

    let mut unknown = issued(3, "north~~ann~pnone");
    unknown.greet(&mut turn);
    let answer = unknown.allocate(&mut turn);
    assert_eq!(
        (answer.code(), answer.told.refusal),
        (401, Some(Refusal::Claims))
    );
    // A user with a password is not one of them, whatever its name says.
    let mut fixed = ann().at(udp("198.51.100.77:1"));
    assert_eq!(fixed.allocate(&mut turn).code(), 0);
}

#[test]
fn a_policy_that_is_withdrawn_closes_what_it_opened() {
    let media = |settings: &mut Settings, allow: &[&str]| {
        base(settings, |_| {});
        settings.policies.insert("media".into(), peers(allow, &[]));
    };
    let mut turn = Turn::with(|settings| media(settings, &["10.1.0.0/16"]));
    let mut user = issued(0, "north~~ann~pmedia");
    assert_eq!(user.allocate(&mut turn).code(), 0);
    assert_eq!(user.permit(&mut turn, &["10.1.2.3:1", PEER]), 0);
    turn.reload(|settings| media(settings, &[]));
    assert_eq!(
        user.send(&mut turn, "10.1.2.3:1", b"x"),
        Err(Cause::NoPermission)
    );
    assert_eq!(user.send(&mut turn, PEER, b"x"), Ok(()));
    turn.reload(|settings| base(settings, |_| {}));
    assert_eq!(user.send(&mut turn, PEER, b"x"), Err(Cause::NoPermission));
    assert_eq!(user.permit(&mut turn, &[PEER]), 403);
    // And it cannot be prolonged.
    assert_eq!(user.refresh(&mut turn, Some(600)).code(), 401);
}
