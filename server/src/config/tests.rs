use std::path::PathBuf;

use super::{Flags, LogFormat, ModelChoice, Settings, SettingsError, variable::VARIABLES};

fn load(flags: &Flags, environment: &[(&str, &str)]) -> Result<Settings, SettingsError> {
    Settings::load(
        flags,
        environment
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
    )
}

fn problems(environment: &[(&str, &str)]) -> Vec<String> {
    load(&Flags::default(), environment)
        .unwrap_err()
        .problems
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn folder_with(file: &str) -> (tempfile::TempDir, Flags) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("stepgraph.toml"), file).unwrap();
    let flags = Flags {
        data: Some(folder.path().to_owned()),
        ..Flags::default()
    };
    (folder, flags)
}

#[test]
fn nothing_set_gives_the_documented_defaults() {
    let settings = load(&Flags::default(), &[]).unwrap();

    assert_eq!(settings.data, PathBuf::from("stepgraph-data"));
    assert_eq!((settings.host.as_str(), settings.port), ("127.0.0.1", 8000));
    assert_eq!(settings.model, ModelChoice::ByTenant);
    assert!(settings.provider.is_none() && settings.embedding.is_none() && settings.internal_secret.is_none());
}

#[test]
fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
    let (_folder, flags) = folder_with("host = \"file.example\"\nport = 1\nstepgraph_log_format = \"json\"\n");
    let flags = Flags { port: Some(3), ..flags };

    let settings = load(&flags, &[("PORT", "2"), ("HOST", "environment.example")]).unwrap();

    assert_eq!(settings.port, 3);
    assert_eq!(settings.host, "environment.example");
    assert_eq!(settings.log_format, LogFormat::Json);
}

#[test]
fn all_that_is_wrong_is_listed_at_once_with_where_it_comes_from() {
    let found = problems(&[
        ("PORT", "80000"),
        ("OPENAI_BASE_URL", "localhost"),
        ("STEPGRAPH_LOG_FORMAT", "xml"),
        ("RUST_LOG", "a=b=c"),
    ]);

    assert_eq!(found.len(), 4, "{found:?}");
    assert!(
        found
            .iter()
            .any(|p| p == "PORT: `80000` is not a port: use 0 to 65535, 0 for a free one (from the environment)")
    );
}

#[test]
fn an_empty_value_counts_as_unset() {
    load(&Flags::default(), &[("DATABASE_URL", ""), ("PORT", " ")]).unwrap();
}

#[test]
fn a_misspelt_name_is_refused_in_the_file_and_in_the_environment() {
    let (_folder, flags) = folder_with("prot = 80\n");
    assert!(
        load(&flags, &[])
            .unwrap_err()
            .to_string()
            .contains("prot: is not a setting")
    );
    assert!(problems(&[("STEPGRAPH_MODLE", "x")])[0].starts_with("STEPGRAPH_MODLE: is not a setting"));
}

#[test]
fn a_settings_file_that_was_named_must_be_there_and_readable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent.toml");
    let flags = Flags {
        config: Some(path.clone()),
        ..Flags::default()
    };

    let message = load(&flags, &[]).unwrap_err().to_string();

    assert!(
        message.contains(path.to_str().unwrap()) && message.contains("--config"),
        "{message}"
    );
}

#[test]
fn digits_and_brackets_in_a_secret_stay_as_they_are_written() {
    let settings = load(
        &Flags::default(),
        &[("INTERNAL_API_SECRET", "0123"), ("OPENAI_API_KEY", "[k]")],
    )
    .unwrap();

    assert_eq!(settings.internal_secret.unwrap().expose(), "0123");
    assert_eq!(settings.provider.unwrap().key.unwrap().expose(), "[k]");
}

#[test]
fn no_secret_is_printed_by_any_settings() {
    let secrets: Vec<_> = VARIABLES.iter().filter(|variable| variable.secret).collect();
    let secret = |name| match name {
        super::variable::CHECKPOINTS_URL | super::variable::DATABASE_URL => "postgres://user:hush-hush@host/database",
        super::variable::REDIS_URL => "redis://user:hush-hush@host/",
        super::variable::CHECKPOINTS_KEY => "1:hushhushhushhushhushhushhushhushhushhushhus=",
        _ => "hush-hush",
    };
    // A key alone says nothing.
    let addresses = [(super::variable::QDRANT_URL, "http://host:6334")];
    let environment: Vec<_> = secrets
        .iter()
        .map(|variable| (variable.name, secret(variable.name)))
        .chain(addresses)
        .collect();
    assert!(environment.len() >= 2);

    let settings = load(&Flags::default(), &environment).unwrap();

    assert!(format!("{settings:?} {settings:#?}").contains("***"));
    assert!(!format!("{settings:?} {settings:#?}").contains("hush"));
}

#[test]
fn a_qdrant_needs_its_address_and_has_a_collection() {
    let found = problems(&[("QDRANT_API_KEY", "k"), ("QDRANT_COLLECTION", "c")]);
    assert!(
        found.len() == 2 && found.iter().all(|problem| problem.contains("QDRANT_URL")),
        "{found:?}"
    );
    assert!(problems(&[("QDRANT_URL", "host:6334")])[0].contains("QDRANT_URL"));

    let qdrant = load(&Flags::default(), &[("QDRANT_URL", "http://host:6334")])
        .unwrap()
        .qdrant
        .unwrap();
    assert_eq!(
        (qdrant.url.as_str(), qdrant.collection.as_str()),
        ("http://host:6334", "chatconnect_documents")
    );
}

#[test]
fn a_redis_needs_an_address_of_its_kind() {
    assert!(problems(&[("REDIS_URL", "localhost")])[0].contains("redis://host:6379/"));
    let settings = load(&Flags::default(), &[("REDIS_URL", "redis://host/")]).unwrap();
    assert_eq!(settings.redis.unwrap().expose(), "redis://host/");
}

#[test]
fn keys_of_threads_are_read_from_a_file_or_as_they_are_and_never_told() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, "2:hushhushhushhushhushhushhushhushhushhushhus=\n").unwrap();
    let path = format!("file:{}", file.display());
    let of = |text: &str| load(&Flags::default(), &[("STEPGRAPH_CHECKPOINTS_KEY", text)]);

    let settings = of(&path).unwrap();

    let ids: Vec<_> = settings.checkpoints_key.unwrap().ids().map(|id| id.0).collect();
    assert_eq!(ids, [2]);
    for (wrong, told) in [
        ("hush-hush", "NUMBER:BASE64"),
        ("1:hush", "NUMBER:BASE64"),
        ("file:/nowhere/at/all", "cannot be read"),
    ] {
        let problems = problems(&[("STEPGRAPH_CHECKPOINTS_KEY", wrong)]);
        assert!(
            problems[0].contains(told) && !problems[0].contains("hush"),
            "{problems:?}"
        );
    }
}

#[test]
fn a_named_model_needs_a_provider() {
    let named = [("STEPGRAPH_MODEL", "gpt-9")];
    assert!(problems(&named)[0].contains("unknown model `gpt-9`"));

    let settings = load(
        &Flags::default(),
        &[named[0], ("OPENAI_BASE_URL", "http://127.0.0.1:9000/v1/")],
    )
    .unwrap();
    assert_eq!(settings.model, ModelChoice::Named(super::ModelName::new("gpt-9")));
    assert_eq!(settings.provider.unwrap().base_url, "http://127.0.0.1:9000/v1");
}

#[test]
fn an_alias_stands_for_the_name_the_provider_knows() {
    let settings = load(
        &Flags::default(),
        &[("STEPGRAPH_MODEL_ALIASES", "fast=gpt-4o-mini, old = gpt-4o")],
    )
    .unwrap();

    assert_eq!(settings.resolved(&super::ModelName::new("old")).as_str(), "gpt-4o");
    assert_eq!(settings.resolved(&super::ModelName::new("other")).as_str(), "other");
    assert!(problems(&[("STEPGRAPH_MODEL_ALIASES", "fast")])[0].contains("name=model"));
}

#[test]
fn embeddings_need_a_provider_and_a_known_length() {
    let key = ("OPENAI_API_KEY", "k");
    assert!(problems(&[("EMBEDDING_MODEL", "text-embedding-3-small")])[0].contains("needs a provider"));
    assert!(problems(&[key, ("EMBEDDING_MODEL", "minilm")])[0].contains("EMBEDDING_DIMENSION"));
    assert!(problems(&[key, ("EMBEDDING_DIMENSION", "384")])[0].contains("set both or neither"));

    let known = load(&Flags::default(), &[key, ("EMBEDDING_MODEL", "text-embedding-3-small")]).unwrap();
    assert_eq!(known.embedding.unwrap().dimension, 1536);
    let told = load(
        &Flags::default(),
        &[key, ("EMBEDDING_MODEL", "minilm"), ("EMBEDDING_DIMENSION", "384")],
    )
    .unwrap();
    assert_eq!(told.embedding.unwrap().dimension, 384);
}

#[test]
fn the_operators_catalogue_is_read_with_the_settings() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("models.toml");
    let entry = "[[model]]\nname = \"minilm\"\nprovider = \"house\"\ncontext_tokens = 512\ndimension = 384\n";
    std::fs::write(&path, entry).unwrap();
    let file = ("STEPGRAPH_MODELS_FILE", path.to_str().unwrap());

    let settings = load(
        &Flags::default(),
        &[file, ("OPENAI_API_KEY", "k"), ("EMBEDDING_MODEL", "minilm")],
    )
    .unwrap();

    assert_eq!(settings.embedding.unwrap().dimension, 384);
    std::fs::write(&path, "[[model]]\nname = 1").unwrap();
    assert!(problems(&[file])[0].contains("catalogue of models cannot be read"));
    assert!(problems(&[("STEPGRAPH_MODELS_FILE", "/no/such/file")])[0].contains("cannot be read"));
}

#[test]
fn anthropic_is_reached_at_its_own_address_unless_another_is_set() {
    let key = ("ANTHROPIC_API_KEY", "k");

    let own = load(&Flags::default(), &[key]).unwrap().anthropic.unwrap();
    let other = load(&Flags::default(), &[key, ("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/")]).unwrap();

    assert_eq!(own.base_url, "https://api.anthropic.com");
    assert_eq!(other.anthropic.unwrap().base_url, "http://127.0.0.1:9");
    assert!(load(&Flags::default(), &[]).unwrap().anthropic.is_none());
}
