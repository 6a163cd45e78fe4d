//! Mobility tickets that nobody has to remember: which allocation, sealed (RFC 8016 §5, appendix A).
//!
//! ```text
//! nonce:12  AES-256-GCM( worker:2  allocation:4  secret:8  serial:4 )  tag:16
//! ```
//!
//! The secret is the allocation's own, so that a ticket is worth nothing once it has ended, whoever sits in its place
//! then. A ticket has no end of its own: it ends with its allocation, or when the next one is issued (the serial).

use std::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
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
    /// The allocation's own.
    pub(super) secret: u64,
    /// How many tickets of the allocation came before.
    pub(super) serial: u32,
}

/// A ticket as it travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SealedTicket(pub(super) [u8; SEALED]);

/// Seals tickets, and opens those of every machine that has the same key.
pub(super) struct Tickets {
    /// The machine they are issued by.
    pub(super) worker: WorkerId,
    cipher: Aes256Gcm,
}

impl Tickets {
    pub(super) fn new(worker: WorkerId, key: &TicketKey) -> Self {
        let cipher = Aes256Gcm::new((&key.0).into());
        Self { worker, cipher }
    }

    /// Seals a ticket. `nonce` must be random: 2^32 of them are safe with one key.
    pub(super) fn seal(&self, ticket: &Ticket, nonce: [u8; NONCE]) -> SealedTicket {
        let mut plain = [0; PLAIN];
        plain[..2].copy_from_slice(&ticket.worker.0.to_be_bytes());
        plain[2..6].copy_from_slice(&ticket.allocation.0.to_be_bytes());
        plain[6..14].copy_from_slice(&ticket.secret.to_be_bytes());
        plain[14..].copy_from_slice(&ticket.serial.to_be_bytes());
        let tag = self
            .cipher
            .encrypt_inout_detached(&Nonce::from(nonce), PURPOSE, plain.as_mut_slice().into())
            .expect("so short a text can be sealed");
        let mut sealed = [0; SEALED];
        sealed[..NONCE].copy_from_slice(&nonce);
        sealed[NONCE..NONCE + PLAIN].copy_from_slice(&plain);
        sealed[NONCE + PLAIN..].copy_from_slice(&tag);
        SealedTicket(sealed)
    }

    /// What a ticket says, if it is one of ours.
    pub(super) fn open(&self, sealed: &[u8]) -> Option<Ticket> {
        let (nonce, rest) = sealed.split_first_chunk::<NONCE>()?;
        let (plain, tag) = rest.split_first_chunk::<PLAIN>()?;
        let tag: &[u8; TAG] = tag.try_into().ok()?;
        let mut plain = *plain;
        self.cipher
            .decrypt_inout_detached(
                &Nonce::from(*nonce),
                PURPOSE,
                plain.as_mut_slice().into(),
                &Tag::from(*tag),
            )
            .ok()?;
        let (worker, rest) = plain.split_first_chunk()?;
        let (allocation, rest) = rest.split_first_chunk()?;
        let (secret, serial) = rest.split_first_chunk()?;
        Some(Ticket {
            worker: WorkerId(u16::from_be_bytes(*worker)),
            allocation: AllocationId(u32::from_be_bytes(*allocation)),
            secret: u64::from_be_bytes(*secret),
            serial: u32::from_be_bytes(serial.try_into().ok()?),
        })
    }
}

const PURPOSE: &[u8] = b"turnd mobility ticket";

pub(super) const NONCE: usize = 12;
const PLAIN: usize = 18;
const TAG: usize = 16;
const SEALED: usize = NONCE + PLAIN + TAG;

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng as _, RngExt as _, SeedableRng as _};

    use super::*;

    const TICKET: Ticket = Ticket {
        worker: WorkerId(0x0102),
        allocation: AllocationId(0x0304_0506),
        secret: 0x0708_090A_0B0C_0D0E,
        serial: 0x0F10_1112,
    };

    #[test]
    fn s8016_1_what_is_sealed_can_be_opened_with_the_same_key_alone() {
        let tickets = Tickets::new(WorkerId(7), &TicketKey([1; 32]));
        let sealed = tickets.seal(&TICKET, [9; NONCE]);
        assert_eq!(tickets.open(&sealed.0), Some(TICKET));
        let sibling = Tickets::new(WorkerId(8), &TicketKey([1; 32]));
        assert_eq!(sibling.open(&sealed.0), Some(TICKET));
        let stranger = Tickets::new(WorkerId(7), &TicketKey([2; 32]));
        assert_eq!(stranger.open(&sealed.0), None);
        assert_ne!(tickets.seal(&TICKET, [8; NONCE]), sealed);
    }

    #[test]
    fn s8016_1_nothing_of_it_can_be_read_and_no_bit_changed() {
        let tickets = Tickets::new(WorkerId(7), &TicketKey([1; 32]));
        let sealed = tickets.seal(&TICKET, [9; NONCE]).0;
        assert!(!sealed.windows(4).any(|four| four == [7, 8, 9, 10]));
        for at in 0..SEALED {
            for bit in 0..8 {
                let mut changed = sealed;
                changed[at] ^= 1 << bit;
                assert_eq!(tickets.open(&changed), None, "byte {at}, bit {bit}");
            }
            assert_eq!(tickets.open(&sealed[..at]), None);
        }
        assert_eq!(tickets.open(&[&sealed[..], &[0]].concat()), None);
    }

    /// Half of them made up, half of them a good one with one to eight bytes changed: a million, or fewer where
    /// nothing is optimized.
    #[test]
    fn a25_a_million_forgeries_open_nothing() {
        const FORGERIES: u32 = if cfg!(debug_assertions) {
            250_000
        } else {
            1_000_000
        };
        let tickets = Tickets::new(WorkerId(7), &TicketKey([1; 32]));
        let good = tickets.seal(&TICKET, [9; NONCE]).0;
        let mut random = StdRng::seed_from_u64(8016);
        for number in 0..FORGERIES {
            let mut forged = good;
            if number % 2 == 0 {
                random.fill_bytes(&mut forged);
            } else {
                for _ in 0..random.random_range(1..=8) {
                    forged[random.random_range(0..SEALED)] ^= random.random_range(1..=u8::MAX);
                }
            }
            if forged != good {
                assert_eq!(tickets.open(&forged), None, "{number}: {forged:02x?}");
            }
        }
    }
}
