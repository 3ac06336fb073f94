use futures_util::TryStreamExt;
use tokio::time::Instant;

use super::*;
use crate::service::{Message, ModelName, embedded::NO_INFORMATION};

fn request(question: &str) -> ChatRequest {
    ChatRequest {
        model: ModelName::new("scripted"),
        messages: vec![
            Message {
                role: Role::System,
                content: "Answer well.".to_owned(),
            },
            Message {
                role: Role::User,
                content: question.to_owned(),
            },
        ],
        question: question.to_owned(),
        passages: vec![source("kettle")],
        completion_tokens_max: 3,
        temperature: None,
        answer_by: None,
        fallback: None,
    }
}

fn tenant(id: &str) -> TenantId {
    TenantId::authenticated(id).unwrap()
}

async fn ask(model: &Scripted, question: &str) -> Result<Vec<ChatDelta>, ServiceError> {
    model.chat(&tenant("a"), request(question)).await?.try_collect().await
}

fn text(deltas: &[ChatDelta]) -> String {
    deltas
        .iter()
        .filter_map(|delta| {
            if let ChatDelta::Text(text) = delta {
                Some(text.as_str())
            } else {
                None
            }
        })
        .collect()
}

fn code(error: ServiceError) -> String {
    match error {
        ServiceError::Scripted { code } => code,
        other => other.to_string(),
    }
}

#[tokio::test]
async fn say_answers_exactly_the_string_whatever_the_seed() {
    let said = "two\nlines: \"quoted\" 👩‍👩‍👧‍👦\u{0}";
    let message = format!("say:{}", serde_json::to_string(said).unwrap());
    let mut cuts = HashSet::new();
    for seed in 0..20 {
        let deltas = ask(&Scripted::new(seed), &message).await.unwrap();

        assert_eq!(text(&deltas), said);
        assert_eq!(deltas, ask(&Scripted::new(seed), &message).await.unwrap());
        cuts.insert(format!("{deltas:?}"));
    }
    assert!(cuts.len() > 10, "seeds vary the cuts: {}", cuts.len());
}

#[tokio::test]
async fn every_answer_ends_with_its_token_counts() {
    let deltas = ask(&Scripted::new(1), "say:\"hello world\"").await.unwrap();

    let usage = Usage {
        prompt_tokens: tokens::count_prompt(&request("say:\"hello world\"").messages),
        completion_tokens: 2,
        ..Usage::default()
    };
    assert_eq!(
        deltas.last(),
        Some(&ChatDelta::Finish {
            reason: FinishReason::Stop,
            usage
        })
    );
}

#[tokio::test]
async fn fail_fails_at_once_and_failmid_after_the_first_token() {
    let model = Scripted::new(1);

    assert_eq!(
        code(ask(&model, "fail:QUOTA_EXCEEDED").await.unwrap_err()),
        "QUOTA_EXCEEDED"
    );
    let mut stream = model.chat(&tenant("a"), request("failmid:LLM_ERROR")).await.unwrap();
    assert!(matches!(stream.next().await, Some(Ok(ChatDelta::Text(_)))));
    assert_eq!(code(stream.next().await.unwrap().unwrap_err()), "LLM_ERROR");
    assert!(stream.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn slow_waits_before_its_first_token_and_drip_before_each() {
    let begin = Instant::now();
    let deltas = ask(&Scripted::new(1), "slow:1500:good: things").await.unwrap();
    assert_eq!(text(&deltas), "good: things");
    assert_eq!(begin.elapsed(), Duration::from_millis(1500));

    let begin = Instant::now();
    let deltas = ask(&Scripted::new(1), "drip:200:5").await.unwrap();
    assert_eq!(deltas.len(), 6);
    assert_eq!(begin.elapsed(), Duration::from_secs(1));
}

#[tokio::test]
async fn flaky_fails_once_per_id_and_tenant() {
    let model = Scripted::new(1);

    assert_eq!(code(ask(&model, "flaky:TIMEOUT:x").await.unwrap_err()), "TIMEOUT");
    assert_eq!(text(&ask(&model, "flaky:TIMEOUT:x").await.unwrap()), "recovered x");
    assert_eq!(code(ask(&model, "flaky:TIMEOUT:y").await.unwrap_err()), "TIMEOUT");
    assert!(model.chat(&tenant("b"), request("flaky:TIMEOUT:x")).await.is_err());
}

#[tokio::test]
async fn src_names_two_sources_and_echo_prompt_gives_all_that_was_sent() {
    let model = Scripted::new(1);

    let deltas = ask(&model, "src:").await.unwrap();
    assert_eq!(text(&deltas), "see sources");
    assert_eq!(
        deltas.first(),
        Some(&ChatDelta::Cited(vec![source("src-doc-1"), source("src-doc-2")]))
    );
    assert_eq!(
        text(&ask(&model, "echo-prompt:").await.unwrap()),
        "system: Answer well.\n\nuser: echo-prompt:"
    );
}

#[tokio::test]
async fn anything_else_is_answered_from_the_passages_or_refused() {
    let model = Scripted::new(1);
    let mut long = request("what is the scripted text of the kettle?");
    long.completion_tokens_max = 100;

    let deltas: Vec<_> = model
        .chat(&tenant("a"), long)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(text(&deltas), "The scripted text of kettle.");
    let mut unknown = request("who: won the world cup?");
    unknown.completion_tokens_max = 100;
    let deltas: Vec<_> = model
        .chat(&tenant("a"), unknown)
        .await
        .unwrap()
        .try_collect()
        .await
        .unwrap();
    assert_eq!(text(&deltas), NO_INFORMATION);
}

#[tokio::test]
async fn a_message_that_is_not_well_formed_is_refused_with_the_form() {
    for message in [
        "say:hello",
        "slow:soon:x",
        "slow:5",
        "drip:10:-1",
        "drip:9999999999:1",
        "flaky:X",
    ] {
        let error = ask(&Scripted::new(1), message).await.unwrap_err();
        assert!(matches!(error, ServiceError::Refused { .. }), "{message}: {error}");
    }
}
