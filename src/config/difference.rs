//! What differs between two configurations, key by key, as the operator would have written it.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::Config;

/// A key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key, as `relay.ports` or `listen[0].address`.
    pub key: String,
    /// Its value before; nothing where it is not given.
    pub old: Option<String>,
    /// Its value afterwards.
    pub new: Option<String>,
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
