//! A field that nodes and the store have, and that nobody is shown: no event, no log line, no caller of the HTTP interface.
#![expect(clippy::print_stdout, reason = "an example prints what it shows")]

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use stepgraph::{END, Extra, Graph, Memory, RunEvent, START, State, TenantId, ThreadId, ThreadKey, View};

#[derive(State, Clone, Serialize, Deserialize)]
struct Sync {
    #[state(input)]
    account: String,
    #[state(input, secret)]
    api_key: String,
    #[state(secret)]
    session: Option<String>,
    contacts: u64,
}

/// A view that reads a secret says so; without `#[view(secret)]` it does not compile.
#[derive(View)]
#[view(of = Sync)]
struct Login {
    account: String,
    #[view(secret)]
    api_key: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut g = Graph::<Sync>::builder("sync");
    let login = g.node("login", |login: Login| async move {
        let session = format!("session of {} by {}", login.account, login.api_key);
        Ok(Sync::update().session(session))
    });
    let count = g.node("count", |sync: std::sync::Arc<Sync>| async move {
        Ok(Sync::update().contacts(if sync.session.is_some() { 12_u64 } else { 0 }))
    });
    g.edge(START, login).edge(login, count).edge(count, END);
    let graph = g.build()?.checkpointer(Memory::new());

    let thread = ThreadKey::new(TenantId::authenticated("acme")?, ThreadId::random());
    let run = graph.run(&thread, SyncInput::new("ada", "key-0815"));
    let mut told = run.stream_with([Extra::Values]);
    while let Some(item) = told.next().await {
        match item? {
            RunEvent::Event(event) => {
                let json = format!("{:?}", event.kind.into_json());
                println!("{json}");
                assert!(!json.contains("0815"));
            }
            RunEvent::Ended(outcome) => {
                // Who has called the run is given the whole state; printed, it still tells no secret.
                println!("{outcome:?}");
                assert!(!format!("{outcome:?}").contains("0815"));
                let done = outcome.done().ok_or("it has ended")?;
                assert_eq!((done.api_key.as_str(), done.contacts), ("key-0815", 12));
                assert_eq!(
                    done.shown()?.get("api_key").and_then(|shown| shown.as_str()),
                    Some("[secret]")
                );
            }
            _ => {}
        }
    }
    Ok(())
}
