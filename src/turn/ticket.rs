//! Mobility tickets that nobody has to remember: which allocation, sealed (RFC 8016 §5, appendix A).
//!
//! ```text
//! base64( tag:16  AES-SIV( worker:1  allocation:3  number:4 ) )
//! ```
//!
//! The number is drawn anew for each ticket, so that an old one is worth nothing, nor is that of an allocation that
//! had the same place before. A ticket has no end of its own: it ends with its allocation, or when it is used. It is
//! text, and no longer than 32 characters, because coturn's clients keep it as such.

use std::fmt;

use aes_siv::siv::Aes128Siv;
use aes_siv::{KeyInit, Tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use zeroize::Zeroize;

use super::WorkerId;
use super::allocation::AllocationId;

/// The key that seals mobility tickets: unpredictable, and the same for all machines of a process.
#[derive(Clone)]
pub struct TicketKey(pub [u8; 32]);

impl Drop for TicketKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for TicketKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKey(..)")
    }
}

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    /// Whose allocation it is.
    pub(super) worker: WorkerId,
    pub(super) allocation: AllocationId,
    /// Tells it from the other tickets of this place.
    pub(super) number: u32,
}

/// A ticket as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealedTicket(pub(super) [u8; TEXT]);

/// Seals tickets, and opens those of every machine that has the same key.
pub(super) struct Tickets {
    /// The machine they are issued by.
    pub(super) worker: WorkerId,
    key: TicketKey,
}

impl Tickets {
    pub(super) fn new(worker: WorkerId, key: &TicketKey) -> Self {
        let key = key.clone();
        Self { worker, key }
    }

    /// Seals a ticket. There is none for the 256th machine, nor for the 2^24th allocation of one.
    pub(super) fn seal(&self, ticket: &Ticket) -> Option<SealedTicket> {
        let worker = u8::try_from(ticket.worker.0).ok()?;
        let [0, allocation @ ..] = ticket.allocation.0.to_be_bytes() else {
            return None;
        };
        let mut sealed = [0; TAG + PLAIN];
        let (tag, plain) = sealed.split_at_mut(TAG);
        plain[0] = worker;
        plain[1..4].copy_from_slice(&allocation);
        plain[4..].copy_from_slice(&ticket.number.to_be_bytes());
        let sealing = self.cipher().encrypt_inout_detached(PURPOSE, plain.into());
        tag.copy_from_slice(&sealing.ok()?);
        let mut text = [0; TEXT];
        STANDARD_NO_PAD.encode_slice(sealed, &mut text).ok()?;
        Some(SealedTicket(text))
    }

    /// What a ticket says, if it is one of ours.
    pub(super) fn open(&self, text: &[u8]) -> Option<Ticket> {
        let mut sealed = [0; TAG + PLAIN];
        let text: &[u8; TEXT] = text.try_into().ok()?;
        STANDARD_NO_PAD.decode_slice(text, &mut sealed).ok()?;
        let (tag, plain) = sealed.split_first_chunk_mut::<TAG>()?;
        self.cipher()
            .decrypt_inout_detached(PURPOSE, (&mut *plain).into(), &Tag::from(*tag))
            .ok()?;
        let (&[worker, a, b, c], number) = plain.split_first_chunk()?;
        Some(Ticket {
            worker: WorkerId(worker.into()),
            allocation: AllocationId(u32::from_be_bytes([0, a, b, c])),
            number: u32::from_be_bytes(number.try_into().ok()?),
        })
    }

    /// Made for each use, which is rare: a move.
    fn cipher(&self) -> Aes128Siv {
        Aes128Siv::new((&self.key.0).into())
    }
}

/// What a ticket is bound to beside its contents.
const PURPOSE: [&[u8]; 1] = [b"turnd mobility ticket"];

const TAG: usize = 16;
const PLAIN: usize = 8;
const TEXT: usize = (TAG + PLAIN) / 3 * 4;

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    const TICKET: Ticket = Ticket {
        worker: WorkerId(0xFE),
        allocation: AllocationId(0x0004_0506),
        number: 0x0708_090A,
    };

    fn tickets(worker: u16, key: u8) -> Tickets {
        Tickets::new(WorkerId(worker), &TicketKey([key; 32]))
    }

    #[test]
    fn s8016_1_what_is_sealed_can_be_opened_with_the_same_key_alone() {
        let sealed = tickets(7, 1).seal(&TICKET).unwrap();
        assert_eq!(tickets(7, 1).open(&sealed.0), Some(TICKET));
        assert_eq!(tickets(8, 1).open(&sealed.0), Some(TICKET));
        assert_eq!(tickets(7, 2).open(&sealed.0), None);
    }

    /// What little could be told apart is told apart by every byte.
    #[test]
    fn s8016_1_tickets_that_say_nearly_the_same_have_nothing_in_common() {
        let tickets = tickets(7, 1);
        let sealed = |number| {
            let ticket = Ticket { number, ..TICKET };
            STANDARD_NO_PAD
                .decode(tickets.seal(&ticket).unwrap().0)
                .unwrap()
        };
        let first = sealed(0);
        for number in 1..1000 {
            let other = sealed(number);
            let alike = first.iter().zip(&other).filter(|(a, b)| a == b).count();
            assert!(alike < 6, "{first:02x?} {other:02x?}");
        }
    }

    #[test]
    fn what_has_no_room_has_no_ticket() {
        for ticket in [
            Ticket {
                worker: WorkerId(256),
                ..TICKET
            },
            Ticket {
                allocation: AllocationId(1 << 24),
                ..TICKET
            },
        ] {
            assert_eq!(tickets(7, 1).seal(&ticket), None);
        }
    }

    #[test]
    fn a25_no_bit_of_it_can_be_changed() {
        let tickets = tickets(7, 1);
        let sealed = tickets.seal(&TICKET).unwrap().0;
        for at in 0..TEXT {
            for bit in 0..8 {
                let mut changed = sealed;
                changed[at] ^= 1 << bit;
                assert_eq!(tickets.open(&changed), None, "byte {at}, bit {bit}");
            }
            assert_eq!(tickets.open(&sealed[..at]), None);
        }
        assert_eq!(tickets.open(&[&sealed[..], b"A"].concat()), None);
    }

    /// Half of them made up, half of them a good one with one to eight bytes changed.
    #[test]
    fn a25_a_million_forgeries_open_nothing() {
        const FORGERS: u64 = 4;
        let tickets = tickets(7, 1);
        let good = STANDARD_NO_PAD
            .decode(tickets.seal(&TICKET).unwrap().0)
            .unwrap();
        let forge = &|seed| {
            let mut random = StdRng::seed_from_u64(seed);
            for number in 0..1_000_000 / FORGERS {
                let mut forged = good.clone();
                if number % 2 == 0 {
                    random.fill(&mut forged[..]);
                } else {
                    for _ in 0..random.random_range(1..=8) {
                        forged[random.random_range(0..TAG + PLAIN)] ^=
                            random.random_range(1..=u8::MAX);
                    }
                }
                if forged != good {
                    let text = STANDARD_NO_PAD.encode(&forged);
                    assert_eq!(tickets.open(text.as_bytes()), None, "{number}: {text}");
                }
            }
        };
        std::thread::scope(|scope| {
            for seed in 0..FORGERS {
                scope.spawn(move || forge(seed));
            }
        });
    }
}
