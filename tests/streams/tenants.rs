//! The host that a client asks for over TLS tells whose door it comes to.

use turnd::stun::{Attribute, Message, Method};
use turnd::turn::{Limits, Tenant, Tenants, Transport, Users};

use super::{Trust, certificates, connect};
use crate::wire::{Client, Plane, loopback};

#[test]
fn a_host_of_a_tenants_is_its_door() {
    let (certificates, trust) = certificates(&[&["turn.test"], &["turn.acme.test"]]);
    let acme = Tenant {
        name: "acme".into(),
        users: Users::new("acme.example"),
        limits: Limits::default(),
        peers: None,
        server_names: vec!["turn.acme.test".to_owned()],
    };
    let plane = Plane::start_as(
        2,
        vec![loopback()],
        |settings| settings.tenants = Tenants::new(vec![acme], Vec::new()),
        |settings| settings.listeners[1].transport = Transport::Tls,
    );
    plane.handle.replace_tls(certificates);
    for (host, wanted) in [
        ("turn.acme.test", "acme.example"),
        ("turn.test", "turnd"),
        ("turn.acme.test", "acme.example"),
    ] {
        assert_eq!(realm(&plane, &trust, host), wanted, "{host}");
    }
    // Without TLS there is no host to ask for.
    assert_eq!(challenge(Client::udp(plane.udp)), "turnd");
}

fn realm(plane: &Plane, trust: &Trust, host: &str) -> String {
    let tls = trust.shake(connect(plane.tcp), host, &[]).unwrap();
    let stream = tls.sock.try_clone().unwrap();
    challenge(Client::over(tls, stream))
}

fn challenge(mut client: Client) -> String {
    let ask = |writer: &mut turnd::stun::Writer<'_>| {
        writer.u8(Attribute::REQUESTED_TRANSPORT, 17);
    };
    let request = client.build(Method::ALLOCATE, ask, false);
    client.send(&request);
    let answer = client.receive();
    let message = Message::parse(&answer).unwrap();
    String::from_utf8(message.realm().unwrap().unwrap().to_vec()).unwrap()
}
