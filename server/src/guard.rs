//! Which addresses the server may call on a tenant's or user's word: call-backs and webhooks.
//!
//! An address is looked up once, every address that the name stands for is judged, and the call goes to what was judged and
//! nowhere else: a name that means another address a moment later does not get past, and no redirect is followed.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use reqwest::{Client, Url, redirect::Policy};
use stepgraph_nodes::service::tls;
use tokio::{net::lookup_host, time::timeout};

/// Longest address that is read.
const URL_BYTES_MAX: usize = 2_048;
/// How long a name may take to be looked up.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);
/// Addresses of one name that are looked at; a name with more is refused.
const ADDRESSES_MAX: usize = 32;

/// Why an address is not called.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GuardError {
    /// It is no address.
    #[error("this is not an address to call: write it as https://host/path, without a user or password")]
    Address,
    /// It would go in clear over the network.
    #[error("`{0}` may be called by https alone: write https, or have the operator list the host in CALLBACK_HOSTS")]
    NotHttps(String),
    /// The name stands for nothing.
    #[error("`{0}` cannot be looked up: check its name")]
    Unknown(String),
    /// It leads into the operator's own network.
    #[error(
        "`{0}` leads to an address that is not public: use a public host, or have the operator list it in CALLBACK_HOSTS"
    )]
    NotPublic(String),
    /// No client could be made for it.
    #[error("no connection can be set up: {0}")]
    Client(String),
}

impl GuardError {
    /// Stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Address => "guard::address",
            Self::NotHttps(_) => "guard::not_https",
            Self::Unknown(_) => "guard::unknown_host",
            Self::NotPublic(_) => "guard::not_public",
            Self::Client(_) => "guard::client",
        }
    }
}

/// Lets calls out to public hosts by https, and to the hosts that the operator lists however they are reached.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    hosts: Vec<String>,
}

/// An address that may be called, with the client that calls it and nothing else.
#[derive(Debug, Clone)]
pub struct Allowed {
    /// Where to send.
    pub url: Url,
    /// Bound to the addresses that were judged; follows no redirect and uses no proxy.
    pub client: Client,
}

impl Guard {
    /// With the operator's own hosts, each `host` or `host:port`.
    #[must_use]
    pub fn new(hosts: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self {
            hosts: hosts
                .into_iter()
                .map(|host| host.as_ref().trim().to_ascii_lowercase())
                .filter(|host| !host.is_empty())
                .collect(),
        }
    }

    /// The same with the host of an address that the operator has set.
    #[must_use]
    pub fn with_origin(mut self, origin: &str) -> Self {
        if let Ok(url) = Url::parse(origin)
            && let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default())
        {
            self.hosts.push(format!("{host}:{port}"));
        }
        self
    }

    /// Judges an address and all that its name stands for.
    ///
    /// # Errors
    /// Why it is not called, and what to write instead.
    pub async fn allow(&self, address: &str) -> Result<Allowed, GuardError> {
        let url = read(address)?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
            return Err(GuardError::Address);
        };
        let is_listed = self.lists(host, port);
        if url.scheme() != "https" && !is_listed {
            return Err(GuardError::NotHttps(host.to_owned()));
        }
        let addresses = resolved(host, port).await?;
        if !is_listed && !addresses.iter().all(|address| is_public(address.ip())) {
            return Err(GuardError::NotPublic(host.to_owned()));
        }
        let client = client(host, &addresses).map_err(|error| GuardError::Client(error.to_string()))?;
        Ok(Allowed { url, client })
    }

    fn lists(&self, host: &str, port: u16) -> bool {
        let full = format!("{host}:{port}");
        self.hosts.iter().any(|listed| *listed == host || *listed == full)
    }
}

fn read(address: &str) -> Result<Url, GuardError> {
    if address.len() > URL_BYTES_MAX {
        return Err(GuardError::Address);
    }
    let url = Url::parse(address).map_err(|_| GuardError::Address)?;
    let is_fit = matches!(url.scheme(), "http" | "https") && url.username().is_empty() && url.password().is_none();
    if is_fit { Ok(url) } else { Err(GuardError::Address) }
}

async fn resolved(host: &str, port: u16) -> Result<Vec<SocketAddr>, GuardError> {
    let unknown = || GuardError::Unknown(host.to_owned());
    let literal = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let addresses: Vec<_> = match literal {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        Err(_) => match timeout(LOOKUP_LIMIT, lookup_host((host, port))).await {
            Ok(Ok(found)) => found.take(ADDRESSES_MAX + 1).collect(),
            Ok(Err(_)) | Err(_) => return Err(unknown()),
        },
    };
    if (1..=ADDRESSES_MAX).contains(&addresses.len()) {
        Ok(addresses)
    } else {
        Err(unknown())
    }
}

fn client(host: &str, addresses: &[SocketAddr]) -> reqwest::Result<Client> {
    tls::install();
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .resolve_to_addrs(host, addresses)
        .build()
}

/// Whether an address lies on the public internet: none of the ranges that networks, machines and clouds keep for
/// themselves.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    // Beside those that the library knows: this network, addresses that providers share with their customers, protocols,
    // what was once a relay to IPv6, measurements, and what is kept for later.
    let [first, second, third, _] = ip.octets();
    let reserved = matches!(
        (first, second, third),
        (0 | 240..=255, _, _) | (100, 64..=127, _) | (192, 0, 0) | (192, 88, 99) | (198, 18..=19, _)
    );
    !(reserved
        || ip.is_private()
        || ip.is_loopback()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_documentation())
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let halves = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match ip.segments() {
        // An IPv4 address in other clothes: mapped, translated, or tunnelled.
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            is_public_v4(halves(high, low))
        }
        // Documentation, and the ranges of special protocols.
        [0x2001, 0x0db8 | 0..=0x1ff, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Nothing else is handed out to the public: loopback, local, multicast and compatible addresses lie outside.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(guard: &Guard, address: &str) -> &'static str {
        match guard.allow(address).await {
            Ok(_) => "allowed",
            Err(error) => error.code(),
        }
    }

    #[tokio::test]
    async fn addresses_that_are_not_public_are_refused_however_they_are_written() {
        let guard = Guard::default();
        for host in [
            "127.0.0.1",
            "127.1",
            "2130706433",
            "0x7f000001",
            "0177.0.0.1",
            "0.0.0.0",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "100.100.100.200",
            "192.0.0.192",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:10.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[64:ff9b::10.0.0.1]",
            "[64:ff9b:1::1]",
            "[2002:a00:1::]",
            "[2001::1]",
            "[2001:db8::1]",
            "[fe80::1]",
            "[fec0::1]",
            "[fc00::1]",
            "[fd00:ec2::254]",
            "[ff02::1]",
            "localhost",
            "LOCALHOST",
        ] {
            assert_eq!(
                refused(&guard, &format!("https://{host}/hook")).await,
                "guard::not_public",
                "{host}"
            );
        }
    }

    #[tokio::test]
    async fn public_addresses_pass_by_https_alone() {
        let guard = Guard::default();
        for host in [
            "93.184.215.14",
            "172.32.0.1",
            "[2606:4700::1111]",
            "[::ffff:93.184.215.14]",
            "[64:ff9b::5db8:d70e]",
        ] {
            assert_eq!(
                refused(&guard, &format!("https://{host}/hook")).await,
                "allowed",
                "{host}"
            );
            assert_eq!(
                refused(&guard, &format!("http://{host}/hook")).await,
                "guard::not_https",
                "{host}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_address_is_refused() {
        let long = format!("https://shop.example/{}", "x".repeat(URL_BYTES_MAX));
        for address in [
            "",
            "shop.example",
            "file:///etc/passwd",
            "gopher://93.184.215.14/",
            "https://user:word@93.184.215.14/",
            "https://user@93.184.215.14/",
            "https://",
            long.as_str(),
        ] {
            assert_eq!(refused(&Guard::default(), address).await, "guard::address", "{address}");
        }
        assert_eq!(
            refused(&Guard::default(), "https://no-such-host.invalid/").await,
            "guard::unknown_host"
        );
    }

    #[tokio::test]
    async fn hosts_of_the_operator_are_called_as_they_are() {
        let guard = Guard::new(["10.1.2.3"]).with_origin("http://localhost:3000/");

        assert_eq!(refused(&guard, "http://10.1.2.3:8080/hook").await, "allowed");
        assert_eq!(refused(&guard, "http://localhost:3000/hook").await, "allowed");
        assert_eq!(refused(&guard, "http://localhost:3001/hook").await, "guard::not_https");
        assert_eq!(
            refused(&guard, "https://localhost:3001/hook").await,
            "guard::not_public"
        );
        assert_eq!(refused(&guard, "https://10.1.2.30/hook").await, "guard::not_public");
    }

    #[tokio::test]
    async fn a_redirect_is_not_followed() {
        use axum::{Router, http::StatusCode, routing::get};
        let app = Router::new()
            .route("/", get(async || (StatusCode::FOUND, [("location", "/secret")])))
            .route("/secret", get(async || "secret"));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });

        let allowed = Guard::default().with_origin(&origin).allow(&origin).await.unwrap();
        let answer = allowed.client.get(allowed.url).send().await.unwrap();

        assert_eq!(answer.status().as_u16(), 302);
        serving.abort();
    }

    #[tokio::test]
    async fn the_call_goes_to_the_address_that_was_judged() {
        use axum::{Router, routing::get};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(async || "reached"));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });

        // The name means nothing to any resolver: whoever looked it up again would not get here.
        let client = client("judged.invalid", &[address]).unwrap();
        let url = format!("http://judged.invalid:{}/", address.port());
        let text = client.get(url).send().await.unwrap().text().await.unwrap();

        assert_eq!(text, "reached");
        serving.abort();
    }
}
