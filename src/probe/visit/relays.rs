//! Relays: asked for, kept, and given back.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use crate::stun::{Attribute, Method, Writer};

use super::super::Access;
use super::super::client::{Answer, Challenge, Client};
use super::super::ends::{Ends, Far, Relay};
use super::super::fault::{Fault, Suspicion};
use super::super::report::{Facts, Name, Step};
use super::{Asked, Visit};

/// How long giving the relays back may take, whatever happened before.
const RELEASE: Duration = Duration::from_secs(2);
/// REQUESTED-TRANSPORT of UDP.
const UDP: u8 = 17;
const IPV4: u8 = 1;
const IPV6: u8 = 2;
/// In seconds: no clock is off by more.
const YEAR: i64 = 366 * 86_400;

const NO_CREDENTIAL: &str = "Give a credential to have the relay itself tested: --secret-file with the secret that the \
    server shares, or --user and --password-file.";

impl Visit<'_> {
    pub(super) async fn allocate(
        &mut self,
        mut client: Client,
        challenge: &Challenge,
    ) -> Option<Asked<u8>> {
        self.begin(Name::Allocate);
        let Some(credential) = self.plan.access.credential(self.plan.unix) else {
            let step = Step::done(Name::Allocate, 0.0, Facts::None {}).into_note();
            let message = Some("not tried, for want of a credential".to_owned());
            let advice = Some(NO_CREDENTIAL.to_owned());
            self.end(Step {
                message,
                advice,
                ..step
            });
            return None;
        };
        client.log_in(challenge, &credential);
        let answer = self.ask_for_relay(client, request_udp).await;
        let (mut client, answer) = self.settled(answer)?;
        let refused = match answer.success() {
            Ok(_) => {
                self.keep(client, &answer, 0)?;
                return Some(Asked::Answered(0));
            }
            Err(Fault::Error(300, _)) => return self.follow(&answer.message()),
            Err(refused) => refused,
        };
        match refused.code() {
            Some(code @ (401 | 441)) => {
                let suspicion = self.suspect(&mut client, challenge).await;
                self.stop(&Fault::Login(code, suspicion))
            }
            Some(440) => {
                // No relays of IPv4, perhaps; browsers ask for no other.
                self.note(&refused);
                self.begin(Name::Allocate);
                let answer = self.ask_for_relay(client, request_family(IPV6)).await;
                let (client, answer) = self.settled(answer)?;
                self.keep(client, &answer, IPV6)?;
                Some(Asked::Answered(IPV6))
            }
            Some(_) | None => self.stop(&refused),
        }
    }

    /// Asks for a relay. While no answer has come, and where none comes, the server may have opened one.
    async fn ask_for_relay(
        &mut self,
        client: Client,
        fill: impl Fn(&mut Writer<'_>),
    ) -> Result<(Client, Answer), Fault> {
        self.others.push(client);
        let client = self.others.last_mut().expect("it was put there");
        let answer = client.ask_for_any(Method::ALLOCATE, fill).await?;
        let client = self.others.pop().expect("it is there still");
        Ok((client, answer))
    }

    /// Finds out what is wrong with a credential, by others that differ in one thing. A Refresh of what is not there
    /// tells: an answer that is signed with a password, whatever it says, is one of a server that knows it.
    async fn suspect(&self, client: &mut Client, challenge: &Challenge) -> Suspicion {
        let accepted = async |client: &mut Client, credential| {
            client.log_in(challenge, &credential);
            let answer = client.ask_for_any(Method::REFRESH, no_lifetime).await;
            answer.is_ok_and(|answer| client.signed(&answer))
        };
        match &self.plan.access {
            Access::Nobody => Suspicion::Password,
            Access::User { name, .. } => Suspicion::of_name(name, self.plan.unix),
            Access::Secret {
                user,
                secret,
                other,
            } => {
                if let Some((is_sha256, other)) = other
                    && accepted(client, Access::mint(other, user, self.plan.unix)).await
                {
                    return Suspicion::OtherHash(*is_sha256);
                }
                let later = self.plan.unix + YEAR;
                if accepted(client, Access::mint(secret, user, later)).await {
                    return Suspicion::ClockAhead;
                }
                Suspicion::Secret
            }
        }
    }

    pub(super) async fn other_family(&mut self, challenge: &Challenge, family: u8) -> Option<()> {
        self.begin(Name::OtherFamily);
        let other = if family == IPV6 { IPV4 } else { IPV6 };
        let found = match self.client(challenge).await {
            Ok(client) => self.ask_for_relay(client, request_family(other)).await,
            Err(fault) => Err(fault),
        };
        let found = found.and_then(|(client, answer)| {
            let facts = allocation(&answer)?;
            Ok((client, facts))
        });
        match found {
            Ok((client, (facts, _))) => {
                self.others.push(client);
                let client = self.others.last_mut().expect("it was put there");
                if give_back(client).await.is_ok() {
                    self.others.pop();
                }
                self.done(facts);
            }
            // Most servers are so, and nothing has to be done about it.
            Err(fault @ Fault::Error(440, _)) => {
                let family = if other == IPV6 { "IPv6" } else { "IPv4" };
                let step = Step {
                    message: Some(format!("no relays of {family} (440)")),
                    advice: None,
                    ..self.failed(&fault)
                };
                self.end(step.into_note());
            }
            Err(fault @ Fault::Certificate(_)) => return self.stop(&fault),
            Err(fault) => self.note(&fault),
        }
        Some(())
    }

    pub(super) async fn second_allocation(
        &mut self,
        challenge: &Challenge,
        family: u8,
    ) -> Option<()> {
        self.begin(Name::SecondAllocation);
        let client = self.client(challenge).await;
        let client = self.settled(client)?;
        let answer = match family {
            0 => self.ask_for_relay(client, request_udp).await,
            family => self.ask_for_relay(client, request_family(family)).await,
        };
        let (client, answer) = self.settled(answer)?;
        match answer.success() {
            Ok(_) => self.keep(client, &answer, family),
            // One relay can still talk to itself, so that the rest is seen.
            Err(fault @ Fault::Error(486, _)) => {
                self.fail(&fault);
                Some(())
            }
            Err(fault) => self.stop(&fault),
        }
    }

    /// Remembers a relay, to use it and to give it back.
    fn keep(&mut self, client: Client, answer: &Answer, family: u8) -> Option<()> {
        let found = match allocation(answer) {
            Ok(found) => found,
            Err(fault) => {
                self.others.push(client);
                return self.stop(&fault);
            }
        };
        let (facts, relayed) = found;
        let wanted = relayed
            .iter()
            .find(|address| family != IPV6 || address.is_ipv6());
        let address = *wanted.or_else(|| relayed.first())?;
        let relay = Relay { client, address };
        match &mut self.ends {
            Some(ends) => ends.far = Far::Relay(relay),
            None => self.ends = Some(Ends::alone(relay)),
        }
        if is_less_public(address.ip(), self.door.address.ip()) {
            let fault = Fault::Unroutable(address);
            let step = self.failed(&fault);
            self.end(Step { facts, ..step });
        } else {
            self.done(facts);
        }
        Some(())
    }

    /// Gives all relays back, those too that the server may have opened without its answer having come.
    pub(super) async fn release(&mut self) {
        let mut clients = std::mem::take(&mut self.others);
        let doubtful = clients.len();
        if let Some(ends) = self.ends.take() {
            self.begin(Name::Release);
            clients.push(ends.near.client);
            if let Far::Relay(relay) = ends.far {
                clients.push(relay.client);
            }
        }
        let certain = clients.len() > doubtful;
        // A server that is silent for one of them must not keep the others from being given back.
        let each = RELEASE / u32::try_from(clients.len().max(1)).unwrap_or(u32::MAX);
        let mut failed = None;
        for (place, client) in clients.iter_mut().enumerate() {
            let given_back = timeout(each, give_back(client)).await;
            let given_back = given_back.unwrap_or(Err(Fault::Silence));
            let told = given_back.err().filter(|_| place >= doubtful);
            failed = failed.or(told);
        }
        match failed {
            _ if !certain => {}
            None => self.done(Facts::None {}),
            // They end by themselves, and a failure before this one has been told already.
            Some(fault) => self.note(&fault),
        }
    }
}

/// What every browser asks for.
pub(super) fn request_udp(writer: &mut Writer<'_>) {
    writer.u8(Attribute::REQUESTED_TRANSPORT, UDP);
}

fn request_family(family: u8) -> impl Fn(&mut Writer<'_>) {
    move |writer| {
        request_udp(writer);
        writer.u8(Attribute::REQUESTED_ADDRESS_FAMILY, family);
    }
}

pub(super) fn no_lifetime(writer: &mut Writer<'_>) {
    writer.u32(Attribute::LIFETIME, 0);
}

async fn give_back(client: &mut Client) -> Result<(), Fault> {
    client.ask(Method::REFRESH, no_lifetime).await.map(drop)
}

fn allocation(answer: &Answer) -> Result<(Facts, Vec<SocketAddr>), Fault> {
    let message = answer.success()?;
    // coturn names an empty address for the family that it has no relay of.
    let relayed: Vec<_> = message
        .xor_relayed_addresses()
        .filter_map(Result::ok)
        .filter(|address| address.port() != 0)
        .collect();
    let lifetime = message.lifetime().and_then(Result::ok);
    let (false, Some(lifetime_seconds)) = (relayed.is_empty(), lifetime) else {
        return Err(Fault::Garbled("a relay without an address or a lifetime"));
    };
    if lifetime_seconds == 0 {
        return Err(Fault::Garbled("a relay that has ended already"));
    }
    let facts = Facts::Allocation {
        relayed_addresses: relayed.clone(),
        lifetime_seconds,
    };
    Ok((facts, relayed))
}

/// Whether fewer can reach an address than can reach the server: peers elsewhere get nothing to it.
fn is_less_public(relay: IpAddr, server: IpAddr) -> bool {
    let width = |ip: IpAddr| match ip.to_canonical() {
        ip if ip.is_unspecified() || ip.is_multicast() => 0,
        ip if ip.is_loopback() => 1,
        IpAddr::V4(v4) if v4.is_private() || v4.is_link_local() || is_shared(v4.octets()) => 2,
        IpAddr::V6(v6) if v6.is_unique_local() || v6.is_unicast_link_local() => 2,
        IpAddr::V4(_) | IpAddr::V6(_) => 3,
    };
    width(relay) < width(server)
}

/// Behind the NAT of a provider (RFC 6598).
fn is_shared([first, second, ..]: [u8; 4]) -> bool {
    first == 100 && second & 0xC0 == 64
}

impl Suspicion {
    /// What is wrong with a credential of this name, if the server does not take it.
    fn of_name(name: &str, unix: i64) -> Self {
        let expiry = name
            .split(':')
            .next()
            .and_then(|expiry| expiry.parse::<i64>().ok());
        match expiry {
            Some(expiry) if expiry <= unix => Self::Expired(unix - expiry),
            Some(_) => Self::Minted,
            None => Self::Password,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_fewer_can_reach_than_the_server_is_found() {
        let cases = [
            ("10.0.0.5", "203.0.113.5", true),
            ("100.64.0.1", "203.0.113.5", true),
            ("169.254.1.1", "203.0.113.5", true),
            ("127.0.0.1", "192.168.0.2", true),
            ("0.0.0.0", "127.0.0.1", true),
            ("224.0.0.1", "127.0.0.1", true),
            ("fd00::1", "2001:db8::1", true),
            ("fe80::1", "203.0.113.5", true),
            ("::ffff:10.0.0.5", "203.0.113.5", true),
            ("198.51.100.7", "203.0.113.5", false),
            ("100.128.0.1", "203.0.113.5", false),
            ("10.0.0.5", "10.0.0.5", false),
            ("203.0.113.5", "10.0.0.5", false),
            ("127.0.0.1", "127.0.0.1", false),
            ("2001:db8::1", "203.0.113.5", false),
        ];
        for (relay, server, expected) in cases {
            let found = is_less_public(relay.parse().unwrap(), server.parse().unwrap());
            assert_eq!(found, expected, "{relay} at {server}");
        }
    }
}
