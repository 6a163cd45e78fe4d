//! Socket addresses as the kernel writes them.

use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The address in a name that the kernel filled.
pub(super) fn read(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    // SAFETY: the family says which structure the kernel wrote; both are smaller than the storage and
    // aligned no stricter.
    unsafe {
        match i32::from(storage.ss_family) {
            libc::AF_INET => {
                let v4 = &*(&raw const *storage).cast::<libc::sockaddr_in>();
                let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
                Some(SocketAddr::V4(SocketAddrV4::new(
                    ip,
                    u16::from_be(v4.sin_port),
                )))
            }
            libc::AF_INET6 => {
                let v6 = &*(&raw const *storage).cast::<libc::sockaddr_in6>();
                let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
                // Flow label and scope are dropped: two packets of one client must compare equal. A
                // link-local client cannot be answered without its scope, so it keeps it.
                let scope = if ip.is_unicast_link_local() {
                    v6.sin6_scope_id
                } else {
                    0
                };
                Some(SocketAddr::V6(SocketAddrV6::new(
                    ip,
                    u16::from_be(v6.sin6_port),
                    0,
                    scope,
                )))
            }
            _ => None,
        }
    }
}

/// Writes an address; returns how many bytes of the storage it takes.
pub(super) fn write(
    address: SocketAddr,
    storage: &mut MaybeUninit<libc::sockaddr_storage>,
) -> libc::socklen_t {
    // SAFETY: both structures fit in a sockaddr_storage and are aligned no stricter.
    unsafe {
        match address {
            SocketAddr::V4(v4) => {
                let mut name: libc::sockaddr_in = mem::zeroed();
                name.sin_family = libc::AF_INET as libc::sa_family_t;
                name.sin_port = v4.port().to_be();
                name.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
                storage.as_mut_ptr().cast::<libc::sockaddr_in>().write(name);
                size_of::<libc::sockaddr_in>() as libc::socklen_t
            }
            SocketAddr::V6(v6) => {
                let mut name: libc::sockaddr_in6 = mem::zeroed();
                name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
                name.sin6_port = v6.port().to_be();
                name.sin6_addr.s6_addr = v6.ip().octets();
                name.sin6_scope_id = v6.scope_id();
                storage
                    .as_mut_ptr()
                    .cast::<libc::sockaddr_in6>()
                    .write(name);
                size_of::<libc::sockaddr_in6>() as libc::socklen_t
            }
        }
    }
}
