//! Lists of hosts, as tenants write them.

use url::Host;

/// The hosts that a tenant names as theirs: `shop.example` is that host alone, `*.shop.example` every host below it,
/// `https://shop.example` the host of that address. Compared label by label, so that `evilshop.example` is not below, and
/// in the form in which browsers send them: `bücher.example` is `xn--bcher-kva.example`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Entry {
    /// This host.
    Exactly(String),
    /// Every host below this one.
    Below(String),
}

impl Domains {
    /// The domains of a list. An entry that names no host covers none.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self(entries.into_iter().map(|entry| Entry::read(entry.as_ref())).collect())
    }

    /// Whether the list is empty, which for pages that carry a widget means all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an entry covers the host.
    ///
    /// ```
    /// use stepgraph_nodes::domains::Domains;
    ///
    /// let domains = Domains::new(["shop.example", "*.shop.example"]);
    /// assert!(domains.cover("www.shop.example"));
    /// assert!(!domains.cover("evilshop.example"));
    /// ```
    #[must_use]
    pub fn cover(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        self.0.iter().any(|entry| match entry {
            Entry::Below(base) => host
                .strip_suffix(base.as_str())
                .filter(|_| !base.is_empty())
                .is_some_and(|left| left.len() > 1 && left.ends_with('.')),
            Entry::Exactly(own) => !own.is_empty() && *own == host,
        })
    }
}

impl Entry {
    fn read(entry: &str) -> Self {
        let host = bare_host(entry.trim());
        match host.strip_prefix("*.") {
            Some(base) => Self::Below(as_browsers_write(base)),
            None => Self::Exactly(as_browsers_write(host)),
        }
    }
}

/// In lower case and ASCII. What is no host stays as it is, and covers none.
fn as_browsers_write(host: &str) -> String {
    Host::parse(host).map_or_else(|_| host.to_ascii_lowercase(), |host| host.to_string())
}

/// The host of an entry that may be an address or carry a port.
fn bare_host(entry: &str) -> &str {
    let behind_scheme = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let authority = behind_scheme.split(['/', '?', '#']).next().unwrap_or_default();
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.chars().all(|c| c.is_ascii_digit()) => host,
        _ => authority,
    };
    host.trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_matched_label_by_label() {
        for (entry, host, covered) in [
            ("shop.example", "shop.example", true),
            ("shop.example", "www.shop.example", false),
            ("*.shop.example", "www.shop.example", true),
            ("*.shop.example", "a.b.shop.example", true),
            ("*.shop.example", "shop.example", false),
            ("*.shop.example", "evilshop.example", false),
            ("https://shop.example", "shop.example", true),
            ("https://shop.example:8443/path", "shop.example", true),
            ("SHOP.example", "Shop.Example.", true),
            ("localhost:3000", "localhost", true),
            ("shop.example", "shop.example.evil", false),
            ("", "shop.example", false),
            ("", "", false),
            ("*.", "shop.example", false),
            ("*", "shop.example", false),
            ("https://*.shop.example:8443", "www.shop.example", true),
            ("https://*.shop.example", "shop.example", false),
            ("https://*.shop.example", "evilshop.example", false),
            ("*.shop.example.", "www.shop.example", true),
            (" shop.example ", "shop.example", true),
            ("127.0.0.1:3000", "127.0.0.1", true),
            ("[::1]:3000", "[::1]", true),
        ] {
            assert_eq!(Domains::new([entry]).cover(host), covered, "{entry} and {host}");
        }
    }

    #[test]
    fn letters_beyond_ascii_are_matched_as_browsers_send_them() {
        for (entry, host) in [
            ("bücher.example", "xn--bcher-kva.example"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("*.bücher.example", "www.xn--bcher-kva.example"),
            ("https://例え.テスト/", "xn--r8jz45g.xn--zckzah"),
        ] {
            let domains = Domains::new([entry]);
            assert!(domains.cover(host), "{entry} and {host}");
            let outside = format!("{host}.evil.example");
            assert!(!domains.cover(&outside), "{entry} and {outside}");
        }
    }
}
