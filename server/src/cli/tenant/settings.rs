//! `stepgraph tenant set`: how a tenant is served.

use clap::Args;
use serde_json::{Map, Value};
use stepgraph_nodes::service::{ClientSettings, postgres::ClientWrites};

use super::{found, open};
use crate::cli::{CliError, Ending, Session, output::say};

/// What `tenant set` takes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  stepgraph tenant set acme model=gpt-4o fallback-model=gpt-4o-mini temperature=0.3
  stepgraph tenant set acme hourly-limit=500 hard-cap=true retention-days=30
  stepgraph tenant set acme allowed-domains=acme.example,*.acme.example
  stepgraph tenant set acme system-prompt=            back to the default

Settings: model, fallback-model, system-prompt, max-tokens, temperature, allowed-domains (by commas), hourly-limit,
hard-cap (true refuses above the limit), overage-cents-per-hundred, alert-threshold-percent, alert-webhook (told when so
much of the limit is used, and all of it), answer-only-from-documents (true or false), score-threshold (0 to
1: how much of a question a passage must hold, or how near to it in meaning it must be), search-limit,
language (a code such as de, for a tenant without documents), memory-tokens, retention-days, document-quota. A running
server takes them over within seconds.")]
pub(in crate::cli) struct SetArgs {
    /// Name of the tenant
    id: String,
    /// A setting and its value; without a value, the default
    #[arg(required = true, value_name = "NAME=VALUE")]
    changes: Vec<String>,
}

/// What a value is written as.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Number,
    Truth,
    List,
}

/// Every setting, by its name on the command line.
const KINDS: &[(&str, Kind)] = &[
    ("model", Kind::Text),
    ("fallback-model", Kind::Text),
    ("system-prompt", Kind::Text),
    ("max-tokens", Kind::Number),
    ("temperature", Kind::Number),
    ("allowed-domains", Kind::List),
    ("hourly-limit", Kind::Number),
    ("hard-cap", Kind::Truth),
    ("overage-cents-per-hundred", Kind::Number),
    ("alert-threshold-percent", Kind::Number),
    ("alert-webhook", Kind::Text),
    ("answer-only-from-documents", Kind::Truth),
    ("score-threshold", Kind::Number),
    ("search-limit", Kind::Number),
    ("language", Kind::Text),
    ("memory-tokens", Kind::Number),
    ("retention-days", Kind::Number),
    ("document-quota", Kind::Number),
];

pub(super) async fn run(args: SetArgs, session: &Session) -> Result<Ending, CliError> {
    let (settings, records) = open(session, ClientWrites::Refused).await?;
    let client = found(&args.id, &settings, &records).await?;
    let changed = changed(&client.settings, &args.changes).map_err(CliError::Usage)?;
    records.clients.set(&client.tenant, &changed).await?;
    if session.output.is_json() {
        session.output.json(&changed)?;
    } else {
        say(&format!("tenant `{}` is served so:", client.tenant));
        for (name, value) in named(&changed) {
            session.output.line(&format!("{name:<28}{value}"))?;
        }
    }
    Ok(Ending::Done)
}

/// What is not as by default, by the names of the command line.
pub(super) fn named(settings: &ClientSettings) -> Vec<(String, String)> {
    let Ok(Value::Object(all)) = serde_json::to_value(settings) else {
        return Vec::new();
    };
    let line = |(name, _): &(&str, Kind)| {
        let value = all.get(&camel(name))?;
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        Some(((*name).to_owned(), text))
    };
    KINDS.iter().filter_map(line).collect()
}

/// `hourly-limit` as the stored form has it: `hourlyLimit`.
fn camel(name: &str) -> String {
    let mut words = name.split('-');
    let mut camel = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        camel.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        camel.extend(letters);
    }
    camel
}

fn changed(settings: &ClientSettings, changes: &[String]) -> Result<ClientSettings, String> {
    let stored = serde_json::to_value(settings).map_err(|error| error.to_string())?;
    let mut all: Map<String, Value> = serde_json::from_value(stored).map_err(|error| error.to_string())?;
    for change in changes {
        let (name, text) = change
            .split_once('=')
            .ok_or_else(|| format!("`{change}` sets nothing: write it as name=value"))?;
        let known = KINDS.iter().find(|(known, _)| *known == name);
        let (_, kind) = known.ok_or_else(|| format!("there is no setting `{name}`: `tenant set --help` lists them"))?;
        if text.is_empty() {
            all.remove(&camel(name));
        } else {
            all.insert(camel(name), parsed(name, *kind, text)?);
        }
    }
    let wanted: ClientSettings =
        serde_json::from_value(Value::Object(all)).map_err(|error| format!("a value cannot be used: {error}"))?;
    check(&wanted)?;
    Ok(wanted)
}

fn parsed(name: &str, kind: Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Text => Ok(Value::from(text)),
        Kind::List => Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect()),
        Kind::Number => match serde_json::from_str(text) {
            Ok(number @ Value::Number(_)) => Ok(number),
            _ => Err(format!("`{name}` is a number, not `{text}`")),
        },
        Kind::Truth => match text {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(format!("`{name}` is true or false, not `{text}`")),
        },
    }
}

/// What the types alone do not say.
fn check(settings: &ClientSettings) -> Result<(), String> {
    let outside = |name: &str, range: &str| Err(format!("`{name}` is outside its range: use {range}"));
    if settings.temperature.is_some_and(|value| !(0.0..=2.0).contains(&value)) {
        return outside("temperature", "0 to 2");
    }
    if settings
        .alert_threshold_percent
        .is_some_and(|value| !(1..=100).contains(&value))
    {
        return outside("alert-threshold-percent", "1 to 100");
    }
    if settings
        .score_threshold
        .is_some_and(|value| !(0.0..=1.0).contains(&value))
    {
        return outside("score-threshold", "0 to 1");
    }
    let counts = [
        ("max-tokens", settings.max_tokens),
        ("search-limit", settings.search_limit),
        ("retention-days", settings.retention_days),
    ];
    for (name, value) in counts {
        if value == Some(0) {
            return outside(name, "1 or more");
        }
    }
    match &settings.alert_webhook {
        Some(url) if !url.starts_with("https://") && !url.starts_with("http://") => {
            outside("alert-webhook", "an address that begins with https://")
        }
        Some(_) | None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(changes: &[&str]) -> Result<ClientSettings, String> {
        let changes: Vec<_> = changes.iter().map(|change| (*change).to_owned()).collect();
        changed(&ClientSettings::default(), &changes)
    }

    #[test]
    fn every_setting_can_be_set_shown_and_taken_back() {
        let values = |(name, kind): &(&str, Kind)| match (*name, kind) {
            ("language", _) => "language=de".to_owned(),
            ("alert-webhook", _) => "alert-webhook=https://example.com/".to_owned(),
            (name, Kind::Text | Kind::List) => format!("{name}=words"),
            (name, Kind::Number) => format!("{name}=1"),
            (name, Kind::Truth) => format!("{name}=true"),
        };
        let changes: Vec<String> = KINDS.iter().map(values).collect();

        let all = changed(&ClientSettings::default(), &changes).unwrap();

        assert_eq!(named(&all).len(), KINDS.len(), "{all:?}");
        let back: Vec<String> = KINDS.iter().map(|(name, _)| format!("{name}=")).collect();
        assert_eq!(changed(&all, &back).unwrap(), ClientSettings::default());
        let help = <SetArgs as Args>::augment_args(clap::Command::new("set"))
            .render_long_help()
            .to_string();
        assert!(KINDS.iter().all(|(name, _)| help.contains(name)), "{help}");
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_what_can() {
        for (change, remedy) in [
            ("hourly-limit=many", "is a number"),
            ("hard-cap=yes", "true or false"),
            ("model", "name=value"),
            ("modell=x", "--help"),
            ("temperature=3", "0 to 2"),
            ("alert-threshold-percent=0", "1 to 100"),
            ("alert-webhook=example.com", "https://"),
            ("retention-days=0", "1 or more"),
            ("score-threshold=7", "0 to 1"),
            ("language=klingon", "use one of"),
            ("max-tokens=-1", "cannot be used"),
        ] {
            let refused = set(&[change]).unwrap_err();
            assert!(refused.contains(remedy), "{change}: {refused}");
        }
    }
}
