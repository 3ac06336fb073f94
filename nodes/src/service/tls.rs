//! The one place that chooses the provider of TLS.

use std::sync::Once;

/// Makes ring the process's provider of cryptography for TLS. The HTTP clients here are built without one, so that no
/// second provider is compiled; every constructor of such a client calls this first, and calling it again is free.
/// A provider that the host program has installed before stays.
pub fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        if rustls::crypto::ring::default_provider().install_default().is_err() {
            tracing::debug!("the host program has installed its own provider for TLS");
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installing_twice_leaves_a_provider_in_place() {
        install();
        install();

        assert!(rustls::crypto::CryptoProvider::get_default().is_some());
    }
}
