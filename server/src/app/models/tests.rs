use futures_util::TryStreamExt;
use serde_json::json;
use stepgraph::TenantId;
use stepgraph_nodes::service::{ChatDelta, ChatModel as _, ChatRequest, Client, ModelName, Tier};

use super::Models;
use crate::config::{Flags, Settings};

fn models(environment: &[(&str, &str)]) -> Models {
    let environment = environment
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    Models::new(&Settings::load(&Flags::default(), environment).unwrap()).unwrap()
}

fn client(tier: Tier, model: Option<&str>) -> Client {
    let mut client = Client::new(TenantId::authenticated("acme").unwrap());
    client.tier = tier;
    client.settings.model = model.map(ModelName::new);
    client
}

fn name(models: &Models, tier: Tier, model: Option<&str>) -> String {
    models.of(&client(tier, model)).unwrap().to_string()
}

#[test]
fn without_any_provider_everybody_is_answered_by_extraction() {
    let models = models(&[]);

    assert_eq!(name(&models, Tier::Paid, Some("gpt-4o")), "extractive");
    assert!(models.describe().contains("no provider is configured"));
}

#[test]
fn with_a_provider_the_tenants_model_wins_over_its_tiers() {
    let models = models(&[
        ("OPENAI_API_KEY", "k"),
        ("STEPGRAPH_PAID_MODEL", "big"),
        ("STEPGRAPH_MODEL_ALIASES", "mine=gpt-4o"),
    ]);

    assert_eq!(name(&models, Tier::Free, None), "gpt-4o-mini");
    assert_eq!(name(&models, Tier::Paid, None), "big");
    assert_eq!(name(&models, Tier::Free, Some("mine")), "gpt-4o");
}

#[test]
fn a_tenant_whose_provider_is_missing_gets_no_other_model() {
    let paid = client(Tier::Paid, None);

    let refused = models(&[("OPENAI_API_KEY", "k")]).of(&paid).unwrap_err();
    let gateway = models(&[("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")])
        .of(&paid)
        .unwrap();

    assert!(
        refused.to_string().contains("its provider is not configured"),
        "{refused}"
    );
    assert_eq!(gateway.as_str(), "claude-sonnet-4-5-20250514", "a gateway may have it");
}

#[test]
fn one_model_for_all_can_be_set() {
    assert_eq!(
        name(&models(&[("STEPGRAPH_MODEL", "scripted")]), Tier::Free, Some("x")),
        "scripted"
    );
    let named = models(&[
        ("STEPGRAPH_MODEL", "smol"),
        ("OPENAI_BASE_URL", "http://127.0.0.1:1/v1"),
    ]);
    assert_eq!(name(&named, Tier::Paid, Some("x")), "smol");
}

#[test]
fn the_scripted_model_answers_only_where_the_server_is_told_so() {
    let models = models(&[("OPENAI_API_KEY", "k")]);

    let refused = models.of(&client(Tier::Free, Some("scripted"))).unwrap_err();

    assert!(refused.to_string().contains("--model scripted"), "{refused}");
}

#[test]
fn anthropics_models_are_asked_at_their_own_provider_by_the_name_it_knows() {
    let models = models(&[("ANTHROPIC_API_KEY", "k"), ("OPENAI_API_KEY", "k")]);

    assert_eq!(name(&models, Tier::Paid, None), "claude-sonnet-4-5-20250929");
    assert_eq!(name(&models, Tier::Free, None), "gpt-4o-mini");
    assert_eq!(models.in_use().len(), 2);
    let asked = |model: &str| models.answering(&ModelName::new(model)).unwrap().provider();
    assert_eq!((asked("claude-next"), asked("gpt-4o")), ("anthropic", "openai"));
}

#[test]
fn a_free_tenant_gets_no_model_of_the_paid_ones_provider() {
    let models = models(&[("ANTHROPIC_API_KEY", "k")]);

    let refused = models.of(&client(Tier::Free, None)).unwrap_err();

    assert!(refused.to_string().contains("OPENAI_API_KEY"), "{refused}");
    assert_eq!(refused.code(), "service::unavailable");
}

#[test]
fn an_alias_of_the_operator_wins_over_ours() {
    let models = models(&[
        ("ANTHROPIC_API_KEY", "k"),
        (
            "STEPGRAPH_MODEL_ALIASES",
            "claude-sonnet-4-5-20250514=claude-haiku-4-5-20251001",
        ),
    ]);

    assert_eq!(name(&models, Tier::Paid, None), "claude-haiku-4-5-20251001");
}

#[test]
fn a_fallback_is_the_tenants_own_choice_and_must_be_able_to_answer() {
    let models = models(&[("OPENAI_API_KEY", "k")]);
    let mut client = client(Tier::Free, None);
    assert_eq!(models.fallback_of(&client), None);

    client.settings.fallback_model = Some(ModelName::new("gpt-4.1-mini"));
    assert_eq!(models.fallback_of(&client), client.settings.fallback_model);

    client.settings.fallback_model = Some(ModelName::new("claude-haiku-4-5"));
    assert_eq!(models.fallback_of(&client), None);
}

#[test]
fn our_temperature_is_left_out_where_a_model_takes_none_and_the_tenants_own_never_is() {
    let models = models(&[("OPENAI_API_KEY", "k")]);
    let mut client = client(Tier::Free, None);
    let (plain, thinking) = (ModelName::new("gpt-4o"), ModelName::new("gpt-5-mini"));

    assert_eq!(models.temperature(&client, &[&plain]), Some(0.2));
    assert_eq!(models.temperature(&client, &[&plain, &thinking]), None);
    client.settings.temperature = Some(0.9);
    assert_eq!(models.temperature(&client, &[&thinking]), Some(0.9));
}

/// A provider that is down, and one that answers.
#[tokio::test]
async fn the_fallback_answers_in_place_of_a_model_that_cannot_and_says_so() {
    let server = axum::Router::new().route(
        "/v1/chat/completions",
        axum::routing::post(async |body: String| {
            if body.contains("\"gpt-4o\"") {
                return (axum::http::StatusCode::SERVICE_UNAVAILABLE, "{}".to_owned());
            }
            let said = json!({"choices": [{"delta": {"content": "hi"}, "finish_reason": "stop"}]});
            (axum::http::StatusCode::OK, format!("data: {said}\n\ndata: [DONE]\n\n"))
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/v1", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, server).await.unwrap() });
    let models = models(&[("OPENAI_BASE_URL", address.as_str())]);
    let request = |fallback: Option<&str>| ChatRequest {
        model: ModelName::new("gpt-4o"),
        messages: Vec::new(),
        question: String::new(),
        passages: Vec::new(),
        completion_tokens_max: 10,
        temperature: None,
        answer_by: None,
        fallback: fallback.map(ModelName::new),
    };
    let tenant = TenantId::authenticated("acme").unwrap();

    assert!(models.chat(&tenant, request(None)).await.is_err());
    let answer = models.chat(&tenant, request(Some("gpt-4.1-mini"))).await.unwrap();

    let deltas: Vec<ChatDelta> = answer.try_collect().await.unwrap();
    assert_eq!(deltas[0], ChatDelta::AnsweredBy(ModelName::new("gpt-4.1-mini")));
    assert_eq!(deltas[1], ChatDelta::Text("hi".to_owned()));
}

#[test]
fn doctor_names_each_model_with_what_is_wrong_with_it() {
    let models = models(&[
        ("OPENAI_API_KEY", "k"),
        ("STEPGRAPH_FREE_MODEL", "of-the-house"),
        ("STEPGRAPH_MODEL_ALIASES", "fast=gpt-4o-mini"),
    ]);

    let findings = models.findings();

    let of = |name: &str| findings.iter().find(|finding| finding.subject.contains(name)).unwrap();
    assert!(!of("paid tier").can_answer && of("paid tier").detail.contains("ANTHROPIC_API_KEY"));
    assert!(of("free tier").can_answer && of("free tier").detail.contains("no price is known"));
    assert!(of("fast").can_answer && of("fast").detail.contains("prices of 20"));
}
