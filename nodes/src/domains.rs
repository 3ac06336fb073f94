//! Lists of hosts, as tenants write them.

/// The hosts that a tenant names as theirs: `shop.example` is that host alone, `*.shop.example` every host below it,
/// `https://shop.example` the host of that address. Compared label by label, so that `evilshop.example` is not below.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Domains(Vec<String>);

impl Domains {
    /// The domains of a list. An entry that names no host covers none.
    #[must_use]
    pub fn new(entries: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let entries = entries.into_iter();
        Self(
            entries
                .map(|entry| entry.as_ref().trim().to_ascii_lowercase())
                .collect(),
        )
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
        self.0.iter().any(|entry| match entry.strip_prefix("*.") {
            Some(base) => host
                .strip_suffix(base)
                .is_some_and(|left| left.len() > 1 && left.ends_with('.')),
            None => bare_host(entry) == host,
        })
    }
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
        ] {
            assert_eq!(Domains::new([entry]).cover(host), covered, "{entry} and {host}");
        }
    }
}
