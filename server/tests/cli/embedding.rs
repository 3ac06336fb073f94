//! A change of the embedding model, and chunks that move to a server.

use std::{
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
};

use axum::{Json, Router, extract::State, routing::post};
use serde_json::{Value, json};

use super::support::{Home, Ran, Running, listening};

/// Documents of the tenant, one chunk each: enough that embedding them takes several calls.
const DOCUMENTS: usize = 200;

/// An embedding provider on a port of its own. It has two models, `small` of 256 numbers and `large` of 512: a place
/// for each word.
struct Embeddings {
    url: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    texts: AtomicUsize,
    /// Texts after which calls are not answered any more.
    silent_after: AtomicUsize,
    /// Told of a call that is not answered.
    silent: std::sync::Mutex<Option<mpsc::Sender<()>>>,
}

impl Embeddings {
    fn start() -> Self {
        let seen = Arc::new(Seen {
            silent_after: AtomicUsize::new(usize::MAX),
            ..Seen::default()
        });
        let router = Router::new()
            .route("/v1/embeddings", post(embed))
            .with_state(Arc::clone(&seen));
        Self {
            url: format!("{}/v1", listening(router)),
            seen,
        }
    }

    /// How many texts it has embedded since this was asked last.
    fn texts(&self) -> usize {
        self.seen.texts.swap(0, Ordering::SeqCst)
    }

    fn with(&self, mut command: Command, model: &str) -> Command {
        let dimension = if model == "small" { "256" } else { "512" };
        command
            .env("OPENAI_BASE_URL", &self.url)
            .env("STEPGRAPH_MODEL", "extractive")
            .env("EMBEDDING_MODEL", model)
            .env("EMBEDDING_DIMENSION", dimension);
        command
    }
}

async fn embed(State(seen): State<Arc<Seen>>, Json(request): Json<Value>) -> Json<Value> {
    let texts = request["input"].as_array().unwrap();
    if seen.texts.load(Ordering::SeqCst) >= seen.silent_after.load(Ordering::SeqCst) {
        if let Some(told) = seen.silent.lock().unwrap().take() {
            told.send(()).unwrap();
        }
        std::future::pending::<()>().await;
    }
    seen.texts.fetch_add(texts.len(), Ordering::SeqCst);
    let length = if request["model"] == "small" { 256 } else { 512 };
    let vector = |text: &Value| {
        let mut vector = vec![0.001_f64; length];
        for word in text.as_str().unwrap().split(|letter: char| !letter.is_alphanumeric()) {
            let place = word.bytes().fold(7_usize, |place, byte| {
                place.wrapping_mul(31).wrapping_add(usize::from(byte))
            }) % length;
            vector[place] += 1.0;
        }
        vector
    };
    let data = texts
        .iter()
        .enumerate()
        .map(|(index, text)| json!({ "index": index, "embedding": vector(text) }));
    Json(json!({ "data": data.collect::<Vec<_>>() }))
}

/// A tenant with documents, embedded by `small` where there is a provider.
fn home(provider: Option<&Embeddings>) -> Home {
    let home = Home::with_tenant();
    let mut lines = String::new();
    for number in 0..DOCUMENTS {
        let text = format!("The device of type T{number} has a warranty of {} months.", number + 3);
        lines.push_str(&json!({ "id": format!("d{number}"), "title": "device", "text": text }).to_string());
        lines.push('\n');
    }
    let path = home.write("devices.jsonl", lines);
    let arguments = [
        "ingest".as_ref(),
        path.as_os_str(),
        "--tenant".as_ref(),
        "acme".as_ref(),
    ];
    let command = home.command(arguments);
    let mut command = match provider {
        Some(provider) => provider.with(command, "small"),
        None => command,
    };
    Ran::of(&mut command).ok();
    home
}

fn question(home: &Home) -> Command {
    home.command(["chat", "--tenant", "acme", "what is the warranty of T77?", "--json"])
}

/// That a command which prints JSON failed.
fn fails(ran: Ran) -> Ran {
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("\"error\""), "{ran:?}");
    ran
}

fn answers(ran: Ran) -> bool {
    ran.ok().json()[0]["answer"].as_str().unwrap().contains("80 months")
}

#[test]
fn after_a_change_of_the_embedder_the_start_is_refused_until_everything_is_embedded_anew() {
    let provider = Embeddings::start();
    let home = home(Some(&provider));
    assert_eq!(provider.texts(), DOCUMENTS);

    for arguments in [
        &["serve", "--port", "0"][..],
        &["chat", "--tenant", "acme", "warranty?"],
    ] {
        let refused = Ran::of(&mut provider.with(home.command(arguments), "large")).refused();
        assert!(refused.stderr.contains("stepgraph reindex"), "{refused:?}");
        let without = home.run(arguments).refused();
        assert!(without.stderr.contains("stepgraph reindex"), "{without:?}");
    }
    provider.texts();

    let done = Ran::of(&mut provider.with(home.command(["reindex", "--json"]), "large")).ok();
    assert_eq!(done.json()[0]["chunks"], DOCUMENTS, "{done:?}");
    assert_eq!(provider.texts(), DOCUMENTS);
    assert!(answers(Ran::of(&mut provider.with(question(&home), "large"))));
    fails(Ran::of(&mut provider.with(question(&home), "small")));
    provider.texts();

    let again = Ran::of(&mut provider.with(home.command(["reindex"]), "large")).ok();
    assert!(again.stdout.contains("nothing to do"), "{again:?}");
    assert_eq!(provider.texts(), 0);

    // Without an embedder the chunks lose their vectors, and words alone find them.
    home.run(["reindex"]).ok();
    assert!(answers(Ran::of(&mut question(&home))));
}

#[test]
fn a_killed_reindex_goes_on_where_it_was_and_the_old_vectors_answer_until_then() {
    let provider = Embeddings::start();
    let home = home(Some(&provider));
    provider.texts();
    let (told, silent) = mpsc::channel();
    *provider.seen.silent.lock().unwrap() = Some(told);
    provider.seen.silent_after.store(128, Ordering::SeqCst);

    let running = Running::of(&mut provider.with(home.command(["reindex"]), "large"));
    silent.recv().unwrap();
    running.kill();
    provider.seen.silent_after.store(usize::MAX, Ordering::SeqCst);
    assert_eq!(provider.texts(), 128);
    assert!(answers(Ran::of(&mut provider.with(question(&home), "small"))));
    fails(Ran::of(&mut provider.with(question(&home), "large")));
    provider.texts();

    Ran::of(&mut provider.with(home.command(["reindex"]), "large")).ok();

    assert_eq!(provider.texts(), DOCUMENTS - 128, "what was embedded is kept");
    assert!(answers(Ran::of(&mut provider.with(question(&home), "large"))));
}

#[test]
fn beside_a_server_everything_is_made_ready_and_takes_its_place_once_the_server_is_stopped() {
    let provider = Embeddings::start();
    let home = home(Some(&provider));
    let mut server = Running::of(&mut provider.with(home.command(["serve", "--port", "0"]), "small"));
    server.line();
    provider.texts();

    let ready = Ran::of(&mut provider.with(home.command(["reindex", "--json"]), "large"));
    assert_eq!(ready.code, Some(1), "{ready:?}");
    assert_eq!(
        (&ready.json()[0]["done"], provider.texts()),
        (&false.into(), DOCUMENTS),
        "{ready:?}"
    );
    assert!(ready.stdout.contains("stepgraph serve"), "{ready:?}");
    server.signal("TERM");

    Ran::of(&mut provider.with(home.command(["reindex"]), "large")).ok();
    assert_eq!(provider.texts(), 0, "nothing is embedded twice");
    assert!(answers(Ran::of(&mut provider.with(question(&home), "large"))));
}

#[test]
fn what_does_not_fit_the_settings_is_said() {
    let home = Home::with_tenant();
    for (arguments, url, says) in [
        (&["vectors", "move", "--to", "qdrant"][..], None, "QDRANT_URL"),
        (&["reindex", "--from", "old"], None, "QDRANT_URL"),
        (&["reindex"], Some("http://localhost:1"), "--from"),
        (
            &["reindex", "--from", "chatconnect_documents"],
            Some("http://localhost:1"),
            "QDRANT_COLLECTION",
        ),
    ] {
        let mut command = home.command(arguments);
        command.envs(url.map(|url| ("QDRANT_URL", url)));
        let ran = Ran::of(&mut command);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        assert!(ran.stderr.contains(says), "{ran:?}");
    }
}

mod live {
    use stepgraph_live::Qdrant;

    use super::*;

    fn at(mut command: Command, server: &Qdrant, collection: &str) -> Command {
        command
            .env("QDRANT_URL", server.url())
            .env("QDRANT_COLLECTION", collection);
        command
    }

    fn collection(name: &str) -> String {
        format!("{name}-{}", uuid::Uuid::new_v4())
    }

    #[test]
    fn chunks_move_to_a_qdrant_beside_a_server_and_are_gone_from_the_folder_once_it_is_stopped() {
        let (home, server, documents) = (home(None), Qdrant::start().unwrap(), collection("moved"));
        let moving = || {
            Ran::of(&mut at(
                home.command(["vectors", "move", "--to", "qdrant", "--json"]),
                &server,
                &documents,
            ))
        };
        let mut serving = home.start(["serve", "--port", "0"]);
        serving.line();

        let copied = moving();
        assert_eq!(
            (copied.code, &copied.json()[0]["done"]),
            (Some(1), &false.into()),
            "{copied:?}"
        );
        serving.signal("TERM");
        assert!(answers(Ran::of(&mut question(&home))), "the folder's own still answer");
        // What was deleted meanwhile is taken out of the copy again.
        home.run(["documents", "delete", "d5", "--tenant", "acme"]).ok();

        let done = moving().ok();
        assert_eq!(
            (&done.json()[0]["done"], &done.json()[0]["chunks"]),
            (&true.into(), &(DOCUMENTS - 1).into())
        );
        assert!(answers(Ran::of(&mut at(question(&home), &server, &documents))));
        let rows = Ran::of(&mut at(
            home.command(["tenant", "erase", "acme", "--json"]),
            &server,
            &documents,
        ));
        assert!(
            rows.stdout
                .contains(&format!("{{\"rows\":{},\"table\":\"chunks\"}}", DOCUMENTS - 1)),
            "{rows:?}"
        );
        let bytes = std::fs::read(home.data().join("vectors.db")).unwrap();
        assert!(
            !bytes.windows(8).any(|window| window == b"warranty"),
            "text is left in the folder"
        );

        let refused = fails(Ran::of(&mut question(&home)));
        assert!(
            refused.stderr.contains("moved") && refused.stderr.contains("QDRANT_URL"),
            "{refused:?}"
        );
        let again = moving();
        assert!(again.stderr.contains("moved"), "{again:?}");
        assert!(home.run(["reindex"]).refused().stderr.contains("moved"));
    }

    #[test]
    fn vectors_are_made_anew_on_the_way_or_in_another_collection() {
        let (provider, server) = (Embeddings::start(), Qdrant::start().unwrap());
        let home = home(Some(&provider));
        let (first, second) = (collection("first"), collection("second"));
        let on = |arguments: &[&str], model: &str, name: &str| {
            Ran::of(&mut at(provider.with(home.command(arguments), model), &server, name))
        };
        provider.texts();

        let unfit = on(&["vectors", "move", "--to", "qdrant"], "large", &collection("unused")).refused();
        assert!(unfit.stderr.contains("stepgraph reindex"), "{unfit:?}");
        on(&["vectors", "move", "--to", "qdrant", "--embed"], "large", &first).ok();
        assert_eq!(provider.texts(), DOCUMENTS);
        let ask = |model: &str, name: &str| Ran::of(&mut at(provider.with(question(&home), model), &server, name));
        assert!(answers(ask("large", &first)));

        let refused = fails(ask("small", &first));
        assert!(refused.stderr.contains("stepgraph reindex --from"), "{refused:?}");
        provider.texts();
        let from = ["reindex", "--from", &first, "--json"];
        let done = on(&from, "small", &second).ok();
        assert_eq!(done.json()[0]["chunks"], DOCUMENTS, "{done:?}");
        assert_eq!(provider.texts(), DOCUMENTS);
        on(&from, "small", &second).ok();
        assert_eq!(provider.texts(), 0, "what is there is kept");
        assert!(answers(ask("small", &second)) && answers(ask("large", &first)));
    }
}
