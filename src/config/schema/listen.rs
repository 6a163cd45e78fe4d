//! `[[listen]]`: where clients come in, and what each place offers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::config::front;
use crate::config::problem::Complaint;
use crate::config::section::Section;
use crate::config::values;
use crate::plane::Listen;
use crate::turn::{PasswordAlgorithms, Transport};

use super::auth::password_algorithms;

pub(in crate::config) const TRANSPORTS: [(&str, Transport); 4] = [
    ("udp", Transport::Udp),
    ("tcp", Transport::Tcp),
    ("tls", Transport::Tls),
    ("dtls", Transport::Dtls),
];

/// The listeners; those with password algorithms of their own are noted in `algorithms`, too.
pub(super) fn read(
    root: &mut Section<'_>,
    algorithms: &mut Vec<(Listen, PasswordAlgorithms)>,
) -> Option<Vec<Listen>> {
    let mut seen = Vec::new();
    let listeners = root.tables("listen", |section| {
        let address = section.parsed("address", values::socket_address);
        let transport = section.parsed("transport", |text| values::word(text, &TRANSPORTS));
        let offered = password_algorithms(section);
        if address.is_none() && !section.is_given("address") {
            section.error(
                "",
                Complaint::new(
                    "this listener has no address",
                    "add address = \"0.0.0.0:3478\"",
                ),
            );
        }
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        let mut listener =
            Listen::new(address.unwrap_or(any), transport.unwrap_or(Transport::Udp));
        front::read(section, &mut listener);
        address?;
        algorithms.extend(offered.map(|offered| (listener.clone(), offered)));
        let kernel_name = (listener.address, listener.transport.is_stream());
        if seen.contains(&kernel_name) && listener.address.port() != 0 {
            let what = format!("{} is listened on twice", listener.address);
            section.error(
                "address",
                Complaint::new(
                    what,
                    "take one of them out, or give it another port; tcp and tls cannot share one, nor can udp and dtls",
                ),
            );
        }
        seen.push(kernel_name);
        Some(listener)
    })?;
    let listeners: Vec<Listen> = listeners.into_iter().flatten().collect();
    if listeners.is_empty() && root.is_empty_list("listen") {
        root.error(
            "listen",
            Complaint::new(
                "there is nothing to listen on",
                "add a [[listen]], or leave the key out for port 3478",
            ),
        );
    }
    Some(listeners)
}
