//! Those who are told: the service that wants to know how documents come along, and each tenant's own receiver of alerts.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    extract::{Path, State},
    http::HeaderMap,
    routing::post,
};
use serde_json::Value;

use super::{Marks, NAMES, assert_apart};

/// How long the alerts may take, which are sent every few seconds.
const PATIENCE: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What one of them was told.
struct Heard {
    /// The tenant of whose receiver; `None` for the service that hears of all.
    at: Option<usize>,
    trace: Option<String>,
    headers: String,
    body: String,
}

type All = Arc<Mutex<Vec<Heard>>>;

/// All of them, at one address.
pub(super) struct Hearers {
    address: String,
    heard: All,
    listening: tokio::task::JoinHandle<()>,
}

impl Hearers {
    pub(super) async fn start() -> Self {
        let heard = All::default();
        let router = Router::new()
            .route("/api/internal/document-progress", post(progress))
            .route("/alerts/{tenant}", post(alert))
            .with_state(Arc::clone(&heard));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self {
            address: listener.local_addr().unwrap().to_string(),
            heard,
            listening: tokio::spawn(async move { axum::serve(listener, router).await.unwrap() }),
        }
    }

    pub(super) fn environment(&self) -> [(&'static str, String); 2] {
        [
            ("PROGRESS_CALLBACK_URL", format!("http://{}", self.address)),
            ("CALLBACK_HOSTS", self.address.clone()),
        ]
    }

    /// Where this tenant wants its alerts.
    pub(super) fn alerts_of(&self, of: usize) -> String {
        format!("http://{}/alerts/{}", self.address, NAMES[of])
    }

    fn alerts(&self, of: usize) -> usize {
        let heard = self.heard.lock().unwrap();
        heard.iter().filter(|heard| heard.at == Some(of)).count()
    }

    /// Both tenants came to their limits: each has two alerts.
    pub(super) async fn until_alerts_came(&self) {
        let came = async {
            while (0..2).any(|of| self.alerts(of) < 2) {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, came).await;
        assert!(came.is_ok(), "{} and {} alerts came", self.alerts(0), self.alerts(1));
    }

    /// That each was told of what is its own, under its own traces.
    pub(super) fn check(&self, marks: &Marks) {
        let mut updates = [0, 0];
        for heard in &*self.heard.lock().unwrap() {
            let said: Value = serde_json::from_str(&heard.body).unwrap();
            let of = usize::from(said["clientId"] == NAMES[1]);
            assert_eq!(said["clientId"], NAMES[of], "{said}");
            let all = format!("{} {}", heard.headers, heard.body);
            assert_apart("what a receiver is told", of, &all, marks);
            if let Some(at) = heard.at {
                assert_eq!((at, &heard.trace), (of, &None), "an alert is of many requests: {said}");
            } else {
                updates[of] += 1;
                let own = format!("00-{}", marks[of][2]);
                let trace = heard.trace.as_ref().unwrap();
                assert!(trace.starts_with(&own), "{trace} with {said}");
            }
        }
        assert!(updates.iter().all(|updates| *updates > 0), "{updates:?}");
    }
}

impl Drop for Hearers {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn hear(all: &All, at: Option<usize>, headers: &HeaderMap, body: String) {
    let trace = headers.get("traceparent");
    all.lock().unwrap().push(Heard {
        at,
        trace: trace.map(|trace| trace.to_str().unwrap().to_owned()),
        headers: format!("{headers:?}"),
        body,
    });
}

async fn progress(State(all): State<All>, headers: HeaderMap, body: String) {
    hear(&all, None, &headers, body);
}

async fn alert(State(all): State<All>, Path(tenant): Path<String>, headers: HeaderMap, body: String) {
    let at = NAMES.iter().position(|name| *name == tenant);
    hear(&all, Some(at.unwrap()), &headers, body);
}
