//! `[token]`

use std::fmt;

use crate::config::{Config, IssuerKeys, show_duration};

use super::{path, quoted, secret_file, text};

impl Config {
    pub(super) fn show_token(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = &self.token;
        writeln!(f, "\n[token]\nlisten = [{}]", quoted(&token.listen))?;
        if let Some(files) = &token.certificate {
            let (certificate, key) = (path(&files.certificate), secret_file(&files.key));
            writeln!(f, "certificate = {certificate}\nkey = {key}")?;
        }
        let urls = token.urls.iter().map(|url| url.as_str());
        match token.urls.is_empty() {
            true => writeln!(f, "# urls: by the listeners, or the first of the regions")?,
            false => writeln!(f, "urls = [{}]", quoted(urls))?,
        }
        writeln!(f, "regions = [")?;
        for region in &token.regions {
            let urls = region.urls.iter().map(|url| url.as_str());
            let name = text(region.name.as_deref().unwrap_or_default());
            writeln!(f, "    {{ name = {name}, urls = [{}] }},", quoted(urls))?;
        }
        let dialects = token.dialects.iter().map(|dialect| dialect.label());
        writeln!(
            f,
            "]\nttl = \"{}\"\nmax_ttl = \"{}\"\ndialects = [{}]\norigins = [{}]\nproxies = [{}]",
            show_duration(token.ttl),
            show_duration(token.max_ttl),
            quoted(dialects),
            quoted(&token.origins),
            quoted(&token.proxies)
        )?;
        let rates = token.rates;
        writeln!(
            f,
            "per_subject = {}\nper_tenant = {}\nper_source = {}",
            rates.subject, rates.tenant, rates.source
        )?;
        self.show_api_keys(f)?;
        self.show_issuers(f)
    }

    fn show_api_keys(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "api_keys = [")?;
        for key in &self.token.api_keys {
            let scopes = [("relay.issue", key.issues), ("relay.revoke", key.revokes)];
            let scopes = scopes.iter().filter(|(_, has)| *has);
            write!(
                f,
                "    {{ id = {}, file = {}, scopes = [{}]",
                text(&key.id),
                secret_file(&key.file),
                quoted(scopes.map(|(scope, _)| scope))
            )?;
            if !key.tenant.is_empty() {
                write!(f, ", tenant = {}", text(&key.tenant))?;
            }
            if let Some(ttl) = key.max_ttl {
                write!(f, ", max_ttl = \"{}\"", show_duration(ttl))?;
            }
            writeln!(f, " }},")?;
        }
        writeln!(f, "]")
    }

    fn show_issuers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "issuers = [")?;
        for issuer in &self.token.issuers {
            let algorithms = issuer.algorithms.iter().map(|word| format!("{word:?}"));
            let keys = match &issuer.keys {
                IssuerKeys::Url(url) => text(url),
                IssuerKeys::File(file) => secret_file(file),
            };
            write!(
                f,
                "    {{ issuer = {}, audience = {}, algorithms = [{}], keys = {keys}, scopes = [{}], leeway = \"{}\"",
                text(&issuer.name),
                text(&issuer.audience),
                quoted(algorithms),
                quoted(&issuer.scopes),
                show_duration(issuer.leeway)
            )?;
            if let Some(claim) = &issuer.tenant_claim {
                write!(f, ", tenant_claim = {}", text(claim))?;
            }
            if !issuer.tenant.is_empty() {
                write!(f, ", tenant = {}", text(&issuer.tenant))?;
            }
            writeln!(f, " }},")?;
        }
        writeln!(f, "]")
    }
}
