//! The whole server as the program puts it together, in this process, on whatever services the settings name.

use std::path::Path;

use axum::{Router, body::Body, http::Request, http::StatusCode};
use stepgraph_nodes::service::Records;
use stepgraph_server::{
    Server,
    app::{DataFolder, Graphs, Installation, http_settings},
    config::{Flags, Settings},
};
use tower::ServiceExt as _;

use crate::house::SECRET;

/// A server and what it keeps.
pub(crate) struct Whole {
    pub(crate) server: Server,
    pub(crate) router: Router,
    pub(crate) installation: Installation,
}

/// The settings of a server on this data folder, and nothing of this process's own environment.
pub(crate) fn settings(folder: &Path, environment: &[(&str, String)]) -> Settings {
    let secret = ("INTERNAL_API_SECRET", SECRET.to_owned());
    let environment = environment.iter().chain([&secret]);
    let environment = environment.map(|(name, value)| ((*name).to_owned(), value.clone()));
    let mut settings = Settings::load(&Flags::default(), environment).unwrap();
    folder.clone_into(&mut settings.data);
    settings
}

/// What these settings name, opened.
pub(crate) async fn installation(settings: &Settings) -> Installation {
    let held = DataFolder::hold(&settings.data, "test").unwrap();
    Installation::open(held, settings).await.unwrap()
}

impl Whole {
    /// A server on an installation, at work.
    pub(crate) async fn on(installation: Installation, settings: &Settings) -> Self {
        let graphs = Graphs::open(&installation).await.unwrap();
        let backend = graphs.backend(&installation).await.unwrap();
        let server = graphs.server(&installation, backend, http_settings(settings));
        let server = server.build().unwrap();
        server.start_workers();
        Self {
            router: server.router(),
            server,
            installation,
        }
    }

    pub(crate) fn records(&self) -> &Records {
        &self.installation.records
    }

    /// A call, with its answer read whole.
    pub(crate) async fn send(&self, request: Request<Body>) -> (StatusCode, String) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, String::from_utf8_lossy(&bytes).into_owned())
    }
}
