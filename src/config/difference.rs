//! What differs between two configurations, key by key, as the operator would have written it; and what of that takes
//! effect at once.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::{Config, Contents, Loaded};

/// Keys of files that are read only when the server starts.
const READ_ONCE: [&str; 3] = [
    "admin.token_file",
    "events.otlp_headers_file",
    "events.webhook.secret_file",
];

/// A key whose value differs, or the content of the file that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key, as `relay.ports` or `listen[0].address`.
    pub key: String,
    /// Its value before; nothing where it is not given.
    pub old: Option<String>,
    /// Its value afterwards. Nothing either where it is the same: then what lies in the file differs.
    pub new: Option<String>,
}

/// A configuration as it was read, and what was found in its files.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What the operator asked for.
    pub config: Config,
    /// What was found in its files.
    pub contents: Contents,
    /// Has the configuration file said anything at all?
    pub(super) is_from_file: bool,
}

/// What a reload changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// What takes effect with it.
    pub now: Vec<Difference>,
    /// What waits until the server starts anew.
    pub at_restart: Vec<Difference>,
}

impl Loaded {
    /// What was read.
    pub fn reading(&self) -> Reading {
        Reading {
            config: self.config.clone(),
            contents: self.contents.clone(),
            is_from_file: self.report.is_from_file(),
        }
    }
}

impl Reading {
    /// What a newer one changes for a server that started with this and has read `in_force` last.
    pub fn differences(&self, in_force: &Self, newer: &Self) -> Differences {
        let waits = self.needs_restart(newer);
        // What was changed and is changed back waits for nothing.
        let since = [
            waits.clone(),
            in_force.needs_restart(newer),
            READ_ONCE.to_vec(),
        ]
        .concat();
        let (mut at_restart, mut now) = (self.all(newer), in_force.all(newer));
        at_restart.retain(|difference| is_under(&difference.key, &waits));
        now.retain(|difference| !is_under(&difference.key, &since));
        Differences { now, at_restart }
    }

    /// The keys, or tables, of which a newer one says something else that takes effect only when the server starts anew.
    pub fn needs_restart(&self, newer: &Self) -> Vec<&'static str> {
        let mut keys = self.config.needs_restart(&newer.config);
        let changed: Vec<&str> = self.contents.changed(&newer.contents).collect();
        let mut files = READ_ONCE.to_vec();
        files.retain(|key| changed.contains(key) && !is_under(key, &keys));
        keys.extend(files);
        keys
    }

    fn all(&self, newer: &Self) -> Vec<Difference> {
        let mut all = self.config.differences(&newer.config);
        let changed = self.contents.changed(&newer.contents);
        all.extend(changed.map(|key| Difference {
            key: key.to_owned(),
            old: None,
            new: None,
        }));
        all
    }
}

fn is_under(key: &str, roots: &[&str]) -> bool {
    roots.iter().any(|root| {
        let rest = key.strip_prefix(root);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    })
}

impl Config {
    /// The keys whose values differ from those of a newer configuration, in alphabetical order.
    pub fn differences(&self, newer: &Self) -> Vec<Difference> {
        let (old, mut new) = (values(self), values(newer));
        let mut differences: Vec<Difference> = old
            .into_iter()
            .map(|(key, old)| Difference {
                new: new.remove(&key),
                old: Some(old),
                key,
            })
            .filter(|difference| difference.old != difference.new)
            .collect();
        differences.extend(new.into_iter().map(|(key, new)| Difference {
            key,
            old: None,
            new: Some(new),
        }));
        differences.sort_by(|one, other| one.key.cmp(&other.key));
        differences
    }
}

/// Every key that a configuration shows, and its value.
fn values(config: &Config) -> BTreeMap<String, String> {
    let text = config.to_string();
    let mut values = BTreeMap::new();
    let table = DeTable::parse(&text).expect("a configuration shows itself as TOML");
    flatten("", table.get_ref(), &mut values);
    values
}

fn flatten(path: &str, table: &DeTable<'_>, values: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let key = match path {
            "" => key.get_ref().to_string(),
            path => format!("{path}.{}", key.get_ref()),
        };
        match value.get_ref() {
            DeValue::Table(table) => flatten(&key, table, values),
            DeValue::Array(items) if items.iter().any(|item| item.get_ref().is_table()) => {
                for (index, item) in items.iter().enumerate() {
                    if let DeValue::Table(table) = item.get_ref() {
                        flatten(&format!("{key}[{index}]"), table, values);
                    }
                }
            }
            value @ (DeValue::String(_)
            | DeValue::Integer(_)
            | DeValue::Float(_)
            | DeValue::Boolean(_)
            | DeValue::Datetime(_)
            | DeValue::Array(_)) => {
                values.insert(key, shown(value));
            }
        }
    }
}

fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{text}\""),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Array(items) => {
            let items: Vec<String> = items.iter().map(|item| shown(item.get_ref())).collect();
            format!("[{}]", items.join(", "))
        }
        // No key has a value of these kinds.
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => "…".to_owned(),
    }
}
