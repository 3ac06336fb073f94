use super::*;
use crate::service::{Message, Role};

fn builtin() -> Catalogue {
    Catalogue::builtin().unwrap()
}

fn name(text: &str) -> ModelName {
    ModelName::new(text)
}

fn request(model: &str) -> ChatRequest {
    ChatRequest {
        model: name(model),
        messages: vec![Message {
            role: Role::User,
            content: "hello".to_owned(),
        }],
        question: "hello".to_owned(),
        passages: Vec::new(),
        completion_tokens_max: 1000,
        temperature: None,
        answer_by: None,
        fallback: None,
    }
}

#[test]
fn every_model_of_ours_has_prices_and_limits_that_fit_its_kind() {
    let catalogue = builtin();

    assert!(catalogue.models.len() >= 15);
    for info in catalogue.models.values() {
        assert!(info.prices.is_some(), "{}", info.name);
        assert_ne!(
            info.dimension.is_some(),
            info.output_tokens_max.is_some(),
            "{}",
            info.name
        );
        assert!(!info.reasons || info.temperature_max.is_none(), "{}", info.name);
        assert!(
            ["openai", "anthropic"].contains(&info.provider.as_str()),
            "{}",
            info.name
        );
    }
}

#[test]
fn each_kind_of_token_has_its_price() {
    let usage = Usage {
        prompt_tokens: 1_000,
        completion_tokens: 100,
        cached_tokens: 600,
        cache_write_tokens: 300,
        ..Usage::default()
    };

    let cost = builtin().cost(&name("claude-sonnet-4-5-20250929"), &usage).unwrap();

    // 100 at 300 cents a million, 600 at 30, 300 at 375, 100 at 1,500.
    assert_eq!(cost.microcents(), 100 * 300 + 600 * 30 + 300 * 375 + 100 * 1_500);
    assert_eq!(builtin().cost(&name("unheard-of"), &usage), None);
}

#[test]
fn usage_that_contradicts_itself_costs_no_more_than_its_prompt() {
    let usage = Usage {
        prompt_tokens: 10,
        cached_tokens: 1_000,
        cache_write_tokens: 1_000,
        ..Usage::default()
    };

    let cost = builtin().cost(&name("gpt-4o"), &usage).unwrap();

    assert_eq!(cost.microcents(), 10 * 125);
}

#[test]
fn a_dated_version_is_found_by_its_model() {
    let catalogue = builtin();

    for (dated, model) in [
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
        ("claude-sonnet-4-5-20250514", "claude-sonnet-4-5"),
        ("claude-sonnet-4-20250514", "claude-sonnet-4"),
    ] {
        assert_eq!(
            catalogue.get(&name(dated)).map(|info| info.name.as_str()),
            Some(model),
            "{dated}"
        );
    }
    for unknown in ["gpt-4o-12", "gpt-4o-2024-08", "gpt", ""] {
        assert_eq!(catalogue.get(&name(unknown)), None, "{unknown}");
    }
}

#[test]
fn the_name_that_the_existing_service_writes_leads_to_a_real_one() {
    let catalogue = builtin();

    let real = catalogue.alias(&name("claude-sonnet-4-5-20250514")).unwrap();

    assert_eq!(real, name("claude-sonnet-4-5-20250929"));
    assert_eq!(catalogue.alias(&real), None);
}

#[test]
fn what_a_model_cannot_honour_is_refused_with_what_to_change() {
    let check = |change: fn(&mut ChatRequest), model: &str| {
        let mut request = request(model);
        change(&mut request);
        builtin().check("test", &request)
    };
    let refused = |change, model| check(change, model).unwrap_err().to_string();

    assert!(refused(|request| request.temperature = Some(0.2), "gpt-5-mini").contains("takes no temperature"));
    assert!(refused(|request| request.temperature = Some(1.5), "claude-haiku-4-5").contains("up to 1, not 1.5"));
    assert!(refused(|request| request.completion_tokens_max = 20_000, "gpt-4o").contains("at most 16384 tokens"));
    assert!(refused(|_| {}, "text-embedding-3-small").contains("does not chat"));
    let long: fn(&mut ChatRequest) = |request| {
        for message in &mut request.messages {
            message.content = "word ".repeat(128_000);
        }
    };
    assert!(refused(long, "gpt-4o").contains("are more than the 128000"));
    check(long, "gpt-4.1").unwrap();
    check(|request| request.temperature = Some(1.5), "gpt-4o").unwrap();
    check(|request| request.completion_tokens_max = 1_000_000, "of-the-house").unwrap();
}

#[test]
fn the_operators_entries_take_the_place_of_ours() {
    let text = r#"
        [[model]]
        name = "gpt-4o"
        provider = "openai"
        context_tokens = 1000
        prices = { as_of = "2026-01-31", input = 1, output = 2.5 }
    "#;
    let usage = Usage {
        prompt_tokens: 10,
        completion_tokens: 10,
        cached_tokens: 5,
        ..Usage::default()
    };

    let catalogue = builtin().with(text).unwrap();

    assert_eq!(catalogue.prompt_tokens_max(&name("gpt-4o"), 400), Some(600));
    assert_eq!(
        catalogue.cost(&name("gpt-4o"), &usage).unwrap().microcents(),
        10 * 100 + 10 * 250
    );
    assert!(catalogue.get(&name("gpt-4o-mini")).is_some());
}

#[test]
fn a_catalogue_that_cannot_be_right_says_why() {
    let entry = |rest: &str| format!("[[model]]\nname = \"m\"\nprovider = \"p\"\n{rest}");
    for (text, words) in [
        ("[[model]]".to_owned(), "missing field `name`"),
        (entry("context_tokens = 0"), "no tokens"),
        (
            entry("context_tokens = 10\noutput_tokens_max = 11"),
            "longer than its context",
        ),
        (entry("context_tokens = 10\ntemperature_max = 3.0"), "from 0 to 2"),
        (entry("context_tokens = 10\ndimension = 0"), "no numbers"),
        (entry("context_tokens = 10\ncontex = 1"), "unknown field"),
        (
            entry("context_tokens = 10\nprices = { as_of = \"today\", input = 1, output = 1 }"),
            "no day",
        ),
        (
            entry("context_tokens = 10\nprices = { as_of = \"2026-01-31\", input = -1, output = 1 }"),
            "price",
        ),
    ] {
        let error = builtin().with(&text).unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
    }
}
