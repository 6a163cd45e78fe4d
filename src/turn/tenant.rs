//! Tenants: customers of the operator, each with a realm, users and limits of its own.
//!
//! A client comes to a tenant by its door: a listener of the tenant's, or a host name that it asks for in the TLS
//! handshake. There it is challenged with the tenant's realm, and judged by the tenant's users alone, and by what the
//! operator's own secrets vouch for in the tenant's name. Everywhere else a credential belongs to the tenant whose secret
//! it names, or that the operator's secret names in it: any name, of which nothing else has to be known here.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::offer::is_at;
use super::server::Server;
use super::username;
use super::{
    BadClaims, Client, FiveTuple, Issued, Limits, Peers, Settings, SharedSecret, Transport, Users,
};

/// A customer with a name, and all that is its own.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// The name, as it stands in credentials.
    pub name: Box<str>,
    /// Whose requests are accepted, and in which realm.
    pub users: Users,
    /// What it may have. Of these count only: allocations and rates of the tenant, of one user and of one allocation, and
    /// new peers.
    pub limits: Limits,
    /// Which peers its users may reach, if not those of everybody.
    pub peers: Option<Peers>,
    /// The hosts that its clients ask for in the TLS handshake, in lower case. With `*` as the first label any one.
    pub server_names: Vec<String>,
}

/// A listener, and whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Door {
    /// What is spoken there.
    pub transport: Transport,
    /// Where it listens. A wildcard address stands for all of its family, port 0 for all ports.
    pub address: SocketAddr,
    /// The place of the tenant in the list, if it is one's.
    pub tenant: Option<usize>,
}

/// All tenants that something is known of.
#[derive(Clone, Debug, Default)]
pub struct Tenants {
    list: Vec<Tenant>,
    by_name: HashMap<Box<str>, usize>,
    /// The tenant, and the place among its secrets.
    by_secret: HashMap<Box<[u8]>, usize>,
    by_server_name: HashMap<String, usize>,
    doors: Vec<Door>,
}

impl Tenants {
    /// These tenants. `doors` are all listeners, also those that are nobody's: the most exact address counts.
    pub fn new(list: Vec<Tenant>, doors: Vec<Door>) -> Self {
        let mut all = Self {
            doors,
            ..Self::default()
        };
        for (place, tenant) in list.iter().enumerate() {
            all.by_name.insert(tenant.name.clone(), place);
            for id in tenant.users.claiming_ids() {
                all.by_secret.insert(id.as_bytes().into(), place);
            }
            for host in &tenant.server_names {
                let host = host.strip_prefix('*').unwrap_or(host);
                all.by_server_name.insert(host.to_ascii_lowercase(), place);
            }
        }
        all.list = list;
        all
    }

    /// Keeps the doors of `old` that are not spoken of here: their listeners are still there.
    pub fn keep_doors(&mut self, old: &Self) {
        for door in &old.doors {
            let place = |own: &Door| (own.transport, own.address);
            if !self.doors.iter().any(|own| place(own) == place(door)) {
                let tenant = door.tenant.and_then(|tenant| old.list.get(tenant));
                let tenant = tenant.and_then(|tenant| self.by_name.get(&tenant.name));
                self.doors.push(Door {
                    tenant: tenant.copied(),
                    ..*door
                });
            }
        }
    }

    /// The tenants, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Tenant> {
        self.list.iter()
    }

    fn get(&self, name: &str) -> Option<&Tenant> {
        self.list.get(*self.by_name.get(name)?)
    }

    /// The tenant with a secret of this id, which vouches for claims.
    fn with_secret(&self, id: &[u8]) -> Option<(&Tenant, &SharedSecret)> {
        let tenant = self.list.get(*self.by_secret.get(id)?)?;
        Some((tenant, tenant.users.claiming(id)?))
    }

    /// The tenant that is asked for by a host name: a wildcard stands for one label.
    fn asked_for(&self, host: &str) -> Option<&Tenant> {
        let host = host.to_ascii_lowercase();
        let wildcard = || self.by_server_name.get(host.get(host.find('.')?..)?);
        let place = self.by_server_name.get(&host).or_else(wildcard)?;
        self.list.get(*place)
    }

    /// The tenant whose listener a client has come to.
    fn at(&self, five_tuple: &FiveTuple) -> Option<&Tenant> {
        let fitting = self
            .doors
            .iter()
            .filter(|door| is_at(door.transport, door.address, five_tuple));
        let door = fitting.min_by_key(|door| {
            let wildcard = door.address.ip().is_unspecified();
            (wildcard, door.transport != five_tuple.transport)
        })?;
        self.list.get(door.tenant?)
    }
}

/// Who a user is beside the name: whose customer, and what a secret has said in the name.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing<'a> {
    pub(super) tenant: Option<&'a str>,
    /// The tenant's name stands in it even where the credential leaves it out.
    pub(super) issued: Option<Issued<'a>>,
    /// The tenant's own secret has said it: it speaks for the tenant, not for the operator.
    pub(super) by_tenant: bool,
    /// The one secret that can have vouched for it, if that is none of those who judge at this door.
    pub(super) secret: Option<&'a SharedSecret>,
    /// The name claims what cannot be kept, or what its secret may not say.
    pub(super) bad: bool,
}

impl Settings {
    /// The standing of whoever gives this name at a door.
    pub(super) fn standing<'a>(&'a self, door: Option<&'a Tenant>, name: &'a [u8]) -> Standing<'a> {
        let users = door.map_or(&self.users, |tenant| &tenant.users);
        let home = door.map(|tenant| &*tenant.name);
        let plain = Standing {
            tenant: home,
            by_tenant: door.is_some(),
            ..Standing::default()
        };
        let Some(id) = username::kid(name).filter(|_| !users.has_password(name)) else {
            return plain;
        };
        let (tenant, secret, by_tenant) = if users.claiming(id).is_some() {
            (home, None, door.is_some())
        } else if let Some(secret) = door.and_then(|_| self.users.claiming(id)) {
            (home, Some(secret), false)
        } else if let (None, Some((tenant, secret))) = (door, self.tenants.with_secret(id)) {
            (Some(&*tenant.name), Some(secret), true)
        } else {
            return plain;
        };
        let standing = Standing {
            tenant,
            secret,
            by_tenant,
            ..plain
        };
        standing.with(Issued::parse(name), by_tenant)
    }

    /// The standing of the owner of an allocation, from whichever door the credential came.
    pub(super) fn recalled<'a>(&'a self, name: &'a [u8], tenant: Option<&'a str>) -> Standing<'a> {
        let known = tenant.and_then(|name| self.tenants.get(name));
        let has_password = known
            .map_or(&self.users, |known| &known.users)
            .has_password(name);
        let plain = Standing {
            tenant,
            by_tenant: known.is_some(),
            ..Standing::default()
        };
        let Some(id) = username::kid(name).filter(|_| !has_password) else {
            return plain;
        };
        let by_tenant = known.is_some_and(|known| known.users.claiming(id).is_some());
        if by_tenant || self.users.claiming(id).is_some() {
            let standing = Standing { by_tenant, ..plain };
            standing.with(Issued::parse(name), by_tenant)
        } else {
            plain
        }
    }

    /// Those who judge the credentials of a session: the tenant's own, unless the operator's secret has vouched for them.
    pub(super) fn judges(&self, name: &[u8], tenant: Option<&str>) -> &Users {
        let by_operator = username::kid(name).and_then(|id| self.users.claiming(id));
        let known = self.tenant(tenant).filter(|_| by_operator.is_none());
        known.map_or(&self.users, |tenant| &tenant.users)
    }

    /// The part of a name that is the same for all credentials of a person.
    pub(super) fn person<'a>(&self, name: &'a [u8], standing: &Standing<'_>) -> &'a [u8] {
        let users = self
            .tenant(standing.tenant)
            .map_or(&self.users, |tenant| &tenant.users);
        match standing.issued {
            Some(_) => Issued::person(name).unwrap_or(name),
            None => users.person(name),
        }
    }

    /// The tenant of this name, if something is known of it.
    pub(super) fn tenant(&self, name: Option<&str>) -> Option<&Tenant> {
        self.tenants.get(name?)
    }

    /// The limits for the users of a tenant, or of none.
    pub(super) fn limits_of(&self, tenant: Option<&str>) -> Limits {
        let Some(tenant) = self.tenant(tenant) else {
            return self.limits;
        };
        let (own, all) = (&tenant.limits, &self.limits);
        let mut limits = Limits {
            per_user: own.per_user,
            per_tenant: own.per_tenant,
            bandwidth: own.bandwidth,
            new_peers: own.new_peers,
            ..*all
        };
        limits.bandwidth.total = all.bandwidth.total;
        limits
    }
}

impl<'a> Standing<'a> {
    /// With what the name says. A secret of a tenant speaks for this tenant, and may leave its name out; the operator's
    /// speaks for any, but at a tenant's door only for the tenant whose door it is.
    fn with(self, issued: Option<Result<Issued<'a>, BadClaims>>, may_leave_out: bool) -> Self {
        // What is not of this form names no tenant. The operator's secret is good here only for one that it names.
        let unnamed = self.secret.is_some() && !may_leave_out;
        let mut issued = match issued {
            None if unnamed => return Self { bad: true, ..self },
            None => return self,
            Some(Err(BadClaims)) => return Self { bad: true, ..self },
            Some(Ok(issued)) => issued,
        };
        let tenant = match (self.tenant, issued.tenant) {
            (None, "") => None,
            (None, named) => Some(named),
            (Some(tenant), "") if may_leave_out => Some(tenant),
            (Some(tenant), named) if tenant == named => Some(tenant),
            (Some(_), _) => return Self { bad: true, ..self },
        };
        issued.tenant = tenant.unwrap_or_default();
        Self {
            tenant,
            issued: Some(issued),
            ..self
        }
    }
}

impl Server {
    /// Takes note of the host that a client has asked for in the TLS handshake, if that is a tenant's.
    pub fn client_came(&mut self, client: Client, server_name: &str) {
        if let Some(tenant) = self.settings.tenants.asked_for(server_name) {
            self.doors.insert(client.path, tenant.name.clone());
        }
    }

    /// The tenant at whose door a client came in by the host that it asked for.
    pub fn door_of(&self, client: Client) -> Option<&str> {
        self.doors.get(&client.path).map(|name| &**name)
    }

    /// Takes the word of another machine for that.
    pub fn note_door(&mut self, client: Client, tenant: Option<Box<str>>) {
        match tenant {
            Some(tenant) => self.doors.insert(client.path, tenant),
            None => self.doors.remove(&client.path),
        };
    }

    /// The tenant at whose door a client is: that of the listener, or else of the host that it has asked for.
    pub(super) fn door<'a>(&self, settings: &'a Settings, client: Client) -> Option<&'a Tenant> {
        let tenants = &settings.tenants;
        if tenants.list.is_empty() {
            return None;
        }
        let asked_for = || tenants.get(self.door_of(client)?);
        tenants.at(&client.five_tuple).or_else(asked_for)
    }
}
