//! `[[tenants]]`: customers with users, limits and doors of their own.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;

use crate::plane::Listen;
use crate::turn::{self, Door, Limits, Peers, Tenants, Transport, Users};

use super::assemble::Assembly;
use super::problem::Complaint;
use super::schema::{self, plain};
use super::section::Section;
use super::show::{quoted, text};
use super::{Tenant, TenantLimits, values};

const LONGEST_HOST: usize = 253;

/// The tenants. `ids` are those of the secrets that there are already: a credential says by it whose it is.
pub(super) fn read(root: &mut Section<'_>, mut ids: BTreeSet<String>) -> Vec<Tenant> {
    let mut names = BTreeSet::new();
    let mut hosts = BTreeSet::new();
    let tenants = root.tables("tenants", |section| {
        let name = section.parsed("name", plain);
        if !section.is_given("name") {
            let remedy = "add name = \"acme\": what credentials say between the first two ~";
            section.error("", Complaint::new("this tenant has no name", remedy));
        }
        let tenant = Tenant {
            name: name.clone().unwrap_or_default(),
            realm: section.parsed("realm", schema::realm),
            secrets: schema::secrets(section, &mut ids).unwrap_or_default(),
            users: schema::users(section, &mut BTreeSet::new()),
            listen: section.list("listen", door).unwrap_or_default(),
            server_names: section.list("server_names", host).unwrap_or_default(),
            limits: limits(section),
            peers: peers(section),
        };
        for host in &tenant.server_names {
            if !hosts.insert(host.clone()) {
                let what = format!("two tenants answer to `{host}`");
                section.error("server_names", Complaint::new(what, "take one of them out"));
            }
        }
        if !names.insert(name?) {
            let what = format!("there are two tenants with the name `{}`", tenant.name);
            section.error(
                "name",
                Complaint::new(what, "give each tenant a name of its own"),
            );
        }
        Some(tenant)
    });
    tenants.into_iter().flatten().flatten().collect()
}

fn limits(section: &mut Section<'_>) -> TenantLimits {
    TenantLimits {
        per_user: section.number("per_user", 1, u32::MAX),
        total: section.number("total", 0, u32::MAX),
        bandwidth_per_allocation: section.parsed("bandwidth_per_allocation", values::bit_rate),
        bandwidth_per_user: section.parsed("bandwidth_per_user", values::bit_rate),
        bandwidth_total: section.parsed("bandwidth_total", values::bit_rate),
        new_peers_per_allocation: section.number("new_peers_per_allocation", 0, u32::MAX),
        new_peers_per_user: section.number("new_peers_per_user", 0, u32::MAX),
    }
}

fn peers(section: &mut Section<'_>) -> Option<Peers> {
    let allow = section.list("allow", values::prefix);
    let deny = section.list("deny", values::prefix);
    (allow.is_some() || deny.is_some()).then(|| Peers {
        allow: allow.unwrap_or_default(),
        deny: deny.unwrap_or_default(),
    })
}

/// A listener, as in `udp 0.0.0.0:3479`.
fn door(text: &str) -> Result<(Transport, SocketAddr), Complaint> {
    let (transport, address) = text.trim().split_once(' ').ok_or_else(|| {
        Complaint::new(
            format!("`{text}` is not a listener"),
            "write its transport and its address, as in \"udp 0.0.0.0:3479\"",
        )
    })?;
    let transport = values::word(transport, &schema::TRANSPORTS)?;
    Ok((transport, values::socket_address(address.trim())?))
}

/// The name of a host, or with `*` as its first label any such name.
fn host(text: &str) -> Result<String, Complaint> {
    let plain = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if plain.len() <= LONGEST_HOST && plain.split('.').all(is_label) {
        return Ok(text.to_ascii_lowercase());
    }
    let what = format!("`{text}` is not the name of a host");
    let remedy = "write a name as in \"turn.acme.example\" or \"*.acme.example\"";
    Err(Complaint::new(what, remedy))
}

impl Assembly<'_> {
    /// What the machine is told of the tenants.
    pub(super) fn tenants(&mut self, listeners: &[Listen]) -> Tenants {
        let mut doors: Vec<Door> = listeners
            .iter()
            .map(|listener| Door {
                transport: listener.transport,
                address: listener.address,
                tenant: None,
            })
            .collect();
        let mut list = Vec::new();
        for (place, tenant) in self.config.tenants.iter().enumerate() {
            self.open_doors(place, tenant, &mut doors);
            let users = self.users_of(tenant);
            if tenant.secrets.is_empty()
                && tenant.users.is_empty()
                && (!tenant.listen.is_empty() || !tenant.server_names.is_empty())
            {
                self.warning(
                    &format!("tenants[{place}]"),
                    "this tenant has neither secrets nor users: only credentials of [auth] secrets with its name are good at its door",
                    "add secrets or users, or take listen and server_names out",
                );
            }
            list.push(turn::Tenant {
                name: tenant.name.as_str().into(),
                users,
                limits: tenant.limits.within(&self.config.limits),
                peers: tenant.peers.clone().map(|mut peers| {
                    peers.deny.extend(&self.config.peers.deny);
                    peers
                }),
                server_names: tenant.server_names.clone(),
            });
        }
        if list.is_empty() {
            return Tenants::default();
        }
        Tenants::new(list, doors)
    }

    fn users_of(&mut self, tenant: &Tenant) -> Users {
        let realm = tenant.realm.as_ref().unwrap_or(&self.config.server.realm);
        let mut users = Users::new(realm);
        for source in &tenant.secrets {
            let Some(secret) = self.shared_secret(source) else {
                continue;
            };
            if let Err(error) = users.add_secret(source.voucher(&secret)) {
                self.error(&source.key, error.to_string(), "take the oldest one out");
            }
        }
        self.add_users(&tenant.users, &mut users);
        users
    }

    fn open_doors(&mut self, place: usize, tenant: &Tenant, doors: &mut [Door]) {
        let key = format!("tenants[{place}].listen");
        for (transport, address) in &tenant.listen {
            let shown = format!("{} {address}", transport.label());
            let door = doors
                .iter_mut()
                .find(|door| (door.transport, door.address) == (*transport, *address));
            match door {
                None => self.error(
                    &key,
                    format!("nothing listens on {shown}"),
                    "add a [[listen]] with this address and transport",
                ),
                Some(door) if door.tenant.is_some() => self.error(
                    &key,
                    format!("{shown} is the listener of another tenant already"),
                    "give each tenant a listener of its own",
                ),
                Some(door) => door.tenant = Some(place),
            }
        }
    }
}

impl TenantLimits {
    /// With what holds for everybody where nothing is said.
    fn within(self, all: &Limits) -> Limits {
        let mut limits = *all;
        let of_tenant = |total: u32| if total == 0 { u32::MAX } else { total };
        limits.per_user = self.per_user.unwrap_or(all.per_user);
        limits.per_tenant = self.total.map_or(all.per_tenant, of_tenant);
        let (bandwidth, new_peers) = (&mut limits.bandwidth, &mut limits.new_peers);
        let set = |place: &mut u64, value: Option<u64>| *place = value.unwrap_or(*place);
        set(&mut bandwidth.per_allocation, self.bandwidth_per_allocation);
        set(&mut bandwidth.per_user, self.bandwidth_per_user);
        set(&mut bandwidth.per_tenant, self.bandwidth_total);
        let set = |place: &mut u32, value: Option<u32>| *place = value.unwrap_or(*place);
        set(&mut new_peers.per_allocation, self.new_peers_per_allocation);
        set(&mut new_peers.per_user, self.new_peers_per_user);
        limits
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n[[tenants]]\nname = {}", text(&self.name))?;
        if let Some(realm) = &self.realm {
            writeln!(f, "realm = {}", text(realm))?;
        }
        f.write_str("secrets = [\n")?;
        self.secrets.iter().try_for_each(|secret| secret.show(f))?;
        f.write_str("]\nusers = [\n")?;
        self.users.iter().try_for_each(|user| user.show(f))?;
        let doors = self.listen.iter();
        let doors = doors.map(|(transport, address)| format!("{} {address}", transport.label()));
        writeln!(
            f,
            "]\nlisten = [{}]\nserver_names = [{}]",
            quoted(doors),
            quoted(&self.server_names)
        )?;
        let limits = &self.limits;
        for (key, number) in [
            ("per_user", limits.per_user),
            ("total", limits.total),
            ("new_peers_per_allocation", limits.new_peers_per_allocation),
            ("new_peers_per_user", limits.new_peers_per_user),
        ] {
            if let Some(number) = number {
                writeln!(f, "{key} = {number}")?;
            }
        }
        for (key, rate) in [
            ("bandwidth_per_allocation", limits.bandwidth_per_allocation),
            ("bandwidth_per_user", limits.bandwidth_per_user),
            ("bandwidth_total", limits.bandwidth_total),
        ] {
            if let Some(rate) = rate {
                writeln!(f, "{key} = \"{}\"", values::show_bit_rate(rate))?;
            }
        }
        if let Some(Peers { allow, deny }) = &self.peers {
            writeln!(f, "allow = [{}]\ndeny = [{}]", quoted(allow), quoted(deny))?;
        }
        Ok(())
    }
}
