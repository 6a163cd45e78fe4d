//! Places for connections: there are so many, and no stranger has all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Connections at a time; more wait in the kernel's queue.
const ALL: usize = 1024;
/// Of one address (IPv4) or one /64 (IPv6), which is what one host has. Many users may share an address, but not for long:
/// an idle connection is closed within seconds.
const OF_ONE: usize = 64;

/// The places there are.
pub(super) struct Places {
    free: Arc<Semaphore>,
    /// Who has any, and how many: no more entries than there are places.
    taken: Mutex<HashMap<IpAddr, usize>>,
}

/// One of them. It is free again when this is dropped.
pub(super) struct Place {
    _one: OwnedSemaphorePermit,
    of: Option<(Arc<Places>, IpAddr)>,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            free: Arc::new(Semaphore::new(ALL)),
            taken: Mutex::default(),
        }
    }
}

impl Places {
    /// Waits for a place, for whoever comes next.
    pub(super) async fn next(&self) -> Place {
        let one = Arc::clone(&self.free).acquire_owned().await;
        Place {
            _one: one.expect("the semaphore is never closed"),
            of: None,
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut HashMap<IpAddr, usize>) -> T) -> T {
        change(&mut self.taken.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place {
    /// The place, given to this client; nothing if it has as many as one may have.
    pub(super) fn given_to(mut self, places: &Arc<Places>, client: IpAddr) -> Option<Self> {
        let host = host(client);
        let has_room = places.change(|taken| {
            let count = taken.entry(host).or_default();
            let has_room = *count < OF_ONE;
            *count += usize::from(has_room);
            has_room
        });
        has_room.then(|| {
            self.of = Some((Arc::clone(places), host));
            self
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, host)) = &self.of else {
            return;
        };
        places.change(|taken| {
            if let Some(count) = taken.get_mut(host) {
                *count -= 1;
                if *count == 0 {
                    taken.remove(host);
                }
            }
        });
    }
}

/// What belongs to one host.
fn host(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() >> 64 << 64).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_host_has_all_places() {
        let places = Arc::new(Places::default());
        let mut held = Vec::new();
        let mut take = async |client: &str| {
            let place = places.next().await;
            let place = place.given_to(&places, client.parse().unwrap());
            let is_given = place.is_some();
            held.extend(place);
            is_given
        };
        for _ in 0..OF_ONE {
            assert!(take("192.0.2.1").await && take("2001:db8::1").await);
        }
        assert!(!take("192.0.2.1").await && !take("::ffff:192.0.2.1").await);
        assert!(!take("2001:db8::2:1").await);
        assert!(take("192.0.2.2").await && take("2001:db8:0:1::1").await);
        assert_eq!(places.free.available_permits(), ALL - held.len());
        held.clear();
        assert_eq!(places.free.available_permits(), ALL);
        assert!(
            places.change(|taken| taken.is_empty()),
            "nobody is remembered"
        );
    }
}
