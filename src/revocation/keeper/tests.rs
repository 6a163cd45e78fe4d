use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;

use rusqlite::Connection;

use super::super::Broken;
use super::*;

const NOW: u64 = 1_800_000_000;
const DAY: Duration = Duration::from_secs(86_400);

thread_local! {
    static TIME: Cell<u64> = const { Cell::new(NOW) };
}

fn time() -> u64 {
    TIME.get()
}

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("turnd-revocations-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn database(&self) -> PathBuf {
        self.0.join("state/revocations.sqlite")
    }

    fn keeper(&self, most: usize) -> Keeper {
        let settings = Settings {
            is_asked_for: true,
            database: self.database(),
            keep: DAY,
            most,
        };
        let store = Store::open(&settings.database).unwrap();
        Keeper::new(store, &settings, None, Arc::default(), time).unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn user(name: &str) -> Revoked {
    Revoked::User {
        tenant: "acme".into(),
        user: name.into(),
    }
}

fn order(revoked: Revoked) -> Order {
    Order {
        revoked,
        not_before: None,
        cut: true,
    }
}

fn names(keeper: &Keeper) -> Vec<String> {
    let entries = keeper.list(0, 1000).unwrap();
    entries
        .into_iter()
        .map(|entry| entry.words.user.unwrap())
        .collect()
}

#[tokio::test]
async fn what_is_revoked_is_there_after_a_restart_until_it_has_expired() {
    let place = Place::new();
    let mut keeper = place.keeper(10);
    let ann = keeper.revoke(order(user("ann"))).await.unwrap();
    let term = Term {
        not_before: NOW + 1,
        until: NOW + 1 + 86_400,
    };
    assert_eq!((ann.term, ann.ended), (term, None));
    TIME.set(NOW + 60);
    keeper.revoke(order(user("bob"))).await.unwrap();
    drop(keeper);
    let mut keeper = place.keeper(10);
    assert_eq!(keeper.revocations.get(&user("ann")), Some(term));
    assert_eq!(names(&keeper), ["ann", "bob"]);
    TIME.set(term.until);
    keeper.forget(term.until).await;
    assert_eq!(names(&keeper), ["bob"]);
    assert_eq!(keeper.revocations.len(), 1);
    assert_eq!(keeper.count.load(Ordering::Relaxed), 1);
    let rows = keeper.store.rows_after(0, 10, None).unwrap();
    assert_eq!(rows.len(), 1, "it is gone from the file, too");
}

#[tokio::test]
async fn the_widest_word_about_somebody_counts_until_it_is_taken_back() {
    let place = Place::new();
    let mut keeper = place.keeper(10);
    let at = |moment| Order {
        not_before: Some(moment),
        ..order(user("ann"))
    };
    keeper.revoke(at(NOW)).await.unwrap();
    let again = keeper.revoke(at(NOW - 500)).await.unwrap();
    assert_eq!(again.term.not_before, NOW);
    assert_eq!(
        keeper.revoke(at(NOW * 1000)).await,
        Err(Failure::TooLate),
        "milliseconds"
    );
    assert_eq!(keeper.pardon(user("ann")).await, Ok(true));
    assert_eq!(keeper.pardon(user("ann")).await, Ok(false));
    assert!(keeper.revocations.is_empty() && names(&keeper).is_empty());
    let later = keeper.revoke(at(NOW - 500)).await.unwrap();
    assert_eq!(later.term.not_before, NOW - 500);
    drop(keeper);
    assert_eq!(names(&place.keeper(10)), ["ann"]);
}

#[tokio::test]
async fn there_are_no_more_than_there_may_be() {
    let place = Place::new();
    let mut keeper = place.keeper(2);
    keeper.revoke(order(user("ann"))).await.unwrap();
    keeper.revoke(order(user("bob"))).await.unwrap();
    let full = keeper.revoke(order(user("cid"))).await;
    assert_eq!(full, Err(Failure::Full(2)));
    keeper.revoke(order(user("bob"))).await.unwrap();
    // Those that have expired make room.
    TIME.set(NOW + 2 * DAY.as_secs());
    keeper.revoke(order(user("cid"))).await.unwrap();
    assert_eq!(names(&keeper), ["cid"]);
}

#[tokio::test]
async fn processes_with_one_database_know_of_each_other() {
    let place = Place::new();
    let (mut one, mut other) = (place.keeper(10), place.keeper(10));
    for name in ["ann", "bob", "cid"] {
        one.revoke(order(user(name))).await.unwrap();
        other
            .revoke(order(user(&format!("{name}2"))))
            .await
            .unwrap();
    }
    one.look().await;
    other.look().await;
    let all = ["ann", "ann2", "bob", "bob2", "cid", "cid2"];
    assert_eq!(names(&one), all);
    for keeper in [&one, &other] {
        assert_eq!(keeper.revocations.len(), 6);
        let found = all.map(|name| keeper.revocations.get(&user(name)).is_some());
        assert_eq!(found, [true; 6]);
    }
    one.pardon(user("ann2")).await.unwrap();
    other.look().await;
    assert_eq!(other.revocations.get(&user("ann2")), None);
    assert_eq!(other.revocations.len(), 5);
    // What both speak about is as wide as the wider word.
    let at = |moment| Order {
        not_before: Some(moment),
        ..order(user("dot"))
    };
    one.revoke(at(NOW)).await.unwrap();
    let told = other.revoke(at(NOW - 100)).await.unwrap();
    assert_eq!(told.term.not_before, NOW - 100, "it has not looked yet");
    let now_known = other.revocations.get(&user("dot")).unwrap();
    assert_eq!(now_known.not_before, NOW);
}

#[tokio::test]
async fn what_cannot_be_written_is_in_force_and_written_later() {
    let place = Place::new();
    let mut keeper = place.keeper(10);
    let other = Connection::open(place.database()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let failed = keeper.revoke(order(user("ann"))).await;
    assert!(
        matches!(&failed, Err(Failure::NotKept { ended: None, why }) if why.contains("locked")),
        "{failed:?}"
    );
    assert!(keeper.revocations.get(&user("ann")).is_some());
    assert!(names(&keeper).is_empty());
    other.execute_batch("ROLLBACK").unwrap();
    keeper.write_again();
    assert!(keeper.unsaved.is_empty());
    assert_eq!(names(&keeper), ["ann"]);
}

/// A clock that is wrong for a while brings nobody back whose credentials are good when it is right again.
#[tokio::test]
async fn a_clock_that_leaps_makes_nothing_forgotten() {
    let place = Place::new();
    let mut keeper = place.keeper(10);
    keeper.revoke(order(user("ann"))).await.unwrap();
    TIME.set(NOW + 10 * DAY.as_secs());
    keeper.purge().await;
    // And another process, that starts and hears of things while it is wrong.
    let mut other = place.keeper(10);
    other.purge().await;
    keeper.revoke(order(user("bob"))).await.unwrap();
    TIME.set(NOW + 30 * DAY.as_secs());
    other.look().await;
    other.purge().await;
    TIME.set(NOW + 60);
    for keeper in [&keeper, &other, &place.keeper(10)] {
        assert_eq!(names(keeper), ["ann", "bob"]);
        let found = ["ann", "bob"].map(|name| keeper.revocations.get(&user(name)).is_some());
        assert_eq!(found, [true; 2]);
    }
}

#[test]
fn a_clock_is_believed_that_goes_on_or_stays_where_it_is() {
    let (mut memory, start) = (Memory::default(), Instant::now());
    let minute = |number: u32| start + number * PURGE;
    let mut believes = |unix: u64, number| memory.believes(unix, minute(number)).is_some();
    // At the start nothing is known of it.
    assert!((0..60).all(|number| !believes(NOW + u64::from(number) * 60, number)));
    assert!(believes(NOW + 3600, 60) && believes(NOW + 3660, 61));
    let later = NOW + 3660 + DAY.as_secs();
    assert!(!believes(later, 62) && !believes(later + 60, 63));
    assert!(believes(NOW + 3840, 64), "it is right again");
    assert!(
        !believes(later, 65) && !believes(later, 124),
        "that was another leap"
    );
    assert!(believes(later, 125));
    assert!(believes(NOW, 126), "what was believed before can be wrong");
}

#[tokio::test]
async fn much_that_waits_is_written_bit_by_bit() {
    let place = Place::new();
    let mut keeper = place.keeper(100_000);
    for number in 0..20_000 {
        let revoked = user(&number.to_string());
        keeper.unsaved.push_back(Unsaved {
            term: keeper.term(&revoked, None, NOW).ok(),
            revoked,
            cut: true,
            made: NOW,
        });
    }
    keeper.write_again();
    let left = keeper.unsaved.len();
    assert!((1..20_000).contains(&left), "{left}");
}

#[tokio::test]
async fn names_are_nothing_but_names() {
    let place = Place::new();
    let mut keeper = place.keeper(1000);
    let mut names = vec![
        "'); DROP TABLE revocations; --".to_owned(),
        "\u{0}\u{1b}[31m".to_owned(),
        "%_*?\"'`;".to_owned(),
        "ä\u{202e}name".to_owned(),
        "n".repeat(508),
    ];
    names.extend((0_u32..200).map(|number| {
        let letters =
            (0..20).map(|place| char::from_u32((number * 7919 + place * 104_729) % 0xd800));
        letters.map(Option::unwrap).collect()
    }));
    for name in &names {
        keeper.revoke(order(user(name))).await.unwrap();
        keeper
            .revoke(order(Revoked::Name(name.as_str().into())))
            .await
            .unwrap();
    }
    drop(keeper);
    let keeper = place.keeper(1000);
    for name in &names {
        assert!(keeper.revocations.get(&user(name)).is_some(), "{name:?}");
    }
    assert_eq!(keeper.revocations.len(), 2 * names.len());
}

fn refused(path: &Path) -> Broken {
    match Store::open(path) {
        Ok(_) => panic!("{} is good", path.display()),
        Err(broken) => broken,
    }
}

#[test]
fn a_database_that_cannot_be_used_is_told_with_a_remedy() {
    let place = Place::new();
    let database = place.database();
    drop(Store::open(&database).unwrap());
    let mode = fs::metadata(&database).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let open = || Connection::open(&database).unwrap();

    fs::set_permissions(&database, fs::Permissions::from_mode(0o640)).unwrap();
    assert!(refused(&database).remedy.contains("chmod 0600"));
    fs::set_permissions(&database, fs::Permissions::from_mode(0o600)).unwrap();

    open().execute_batch("PRAGMA user_version = 2").unwrap();
    assert!(refused(&database).what.contains("newer turnd"));
    open().execute_batch("PRAGMA user_version = 1").unwrap();
    drop(Store::open(&database).unwrap());

    open().execute_batch("PRAGMA application_id = 7").unwrap();
    assert!(refused(&database).what.contains("another program"));

    let garbage = place.0.join("garbage");
    fs::write(
        &garbage,
        "no database at all, but long enough to be looked at".repeat(40),
    )
    .unwrap();
    fs::set_permissions(&garbage, fs::Permissions::from_mode(0o600)).unwrap();
    let broken = refused(&garbage);
    assert!(broken.what.contains("is damaged"), "{broken:?}");
    assert!(broken.remedy.contains("backup"), "{broken:?}");

    assert!(refused(&place.0).what.contains("cannot be opened"));
    let nowhere = garbage.join("revocations.sqlite");
    assert!(refused(&nowhere).remedy.contains("[revocation] database"));
}

/// A page in the middle of the file, as a bad disk would have it.
#[tokio::test]
async fn a_damaged_database_is_told_with_a_remedy() {
    let place = Place::new();
    let mut keeper = place.keeper(1000);
    for number in 0..300 {
        keeper
            .revoke(order(user(&format!("user {number}"))))
            .await
            .unwrap();
    }
    drop(keeper);
    let mut bytes = fs::read(place.database()).unwrap();
    assert!(bytes.len() > 16_384, "what was written is in the file");
    bytes[4096..12_288].fill(0xa5);
    fs::write(place.database(), bytes).unwrap();
    let broken = refused(&place.database());
    assert!(broken.what.contains("is damaged"), "{broken:?}");
}
