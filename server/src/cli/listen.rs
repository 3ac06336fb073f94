//! The address a server listens on.

use std::{io, net::SocketAddr};

use tokio::net::TcpListener;

use super::CliError;
use crate::config::Settings;

/// A socket that is bound, and where a browser on this machine finds it.
pub(super) struct Listening {
    pub(super) listener: TcpListener,
    pub(super) url: String,
}

/// Binds the address of the settings, with as many connections to it as the system lets this process have: each takes one
/// of its open files, of which many systems allow a thousand unless they are asked for more.
pub(super) async fn listen(settings: &Settings) -> Result<Listening, CliError> {
    if let Err(error) = rlimit::increase_nofile_limit(u64::MAX) {
        tracing::warn!(%error, "the number of open files could not be raised: connections beyond it are refused");
    }
    let (host, port) = (settings.host.as_str(), settings.port);
    let wrong = |source: io::Error| match source.kind() {
        io::ErrorKind::AddrInUse => CliError::PortTaken {
            host: host.to_owned(),
            port,
        },
        _ => CliError::Address {
            host: host.to_owned(),
            port,
            source,
        },
    };
    let listener = TcpListener::bind((host, port)).await.map_err(wrong)?;
    let address = listener.local_addr().map_err(wrong)?;
    Ok(Listening {
        listener,
        url: url(address),
    })
}

/// `0.0.0.0` and `::` are no addresses to go to; the machine itself is reached by its loopback.
fn url(address: SocketAddr) -> String {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => format!("http://127.0.0.1:{}", v4.port()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => format!("http://[::1]:{}", v6.port()),
        other => format!("http://{other}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{CliError, listen, url};
    use crate::config::{Flags, Settings};

    fn settings(host: &str, port: u16) -> Settings {
        let flags = Flags {
            host: Some(host.to_owned()),
            port: Some(port),
            ..Flags::default()
        };
        Settings::load(&flags, []).unwrap()
    }

    #[tokio::test]
    async fn port_0_takes_a_free_port_and_says_which() {
        let listening = listen(&settings("127.0.0.1", 0)).await.unwrap();

        assert_eq!(
            listening.url,
            format!("http://{}", listening.listener.local_addr().unwrap())
        );
    }

    #[tokio::test]
    async fn a_taken_port_is_said_with_the_remedy() {
        let first = listen(&settings("127.0.0.1", 0)).await.unwrap();
        let port = first.listener.local_addr().unwrap().port();

        let refused = listen(&settings("127.0.0.1", port)).await.err().unwrap();

        assert!(matches!(refused, CliError::PortTaken { .. }));
        assert!(
            refused.to_string().contains(&port.to_string()) && refused.to_string().contains("--port"),
            "{refused}"
        );
    }

    #[test]
    fn an_address_of_all_interfaces_is_shown_as_one_a_browser_can_open() {
        assert_eq!(url("0.0.0.0:80".parse().unwrap()), "http://127.0.0.1:80");
        assert_eq!(url("[::]:80".parse().unwrap()), "http://[::1]:80");
        assert_eq!(url("[::1]:80".parse().unwrap()), "http://[::1]:80");
    }
}
