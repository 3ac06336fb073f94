//! The description of the interface against the interface.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use stepgraph_server::ErrorCode;

use crate::{
    fakes::Step,
    graphs::Served,
    house::{House, SECRET, SESSION, chat_body, request},
};

/// What is wrong with a value by a schema of the document; every member of an object must be described.
fn faults(api: &Value, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let target = api.pointer(name.trim_start_matches('#'));
        return match target {
            Some(target) => faults(api, target, value, at, found),
            None => found.push(format!("{at}: {name} is not in the document")),
        };
    }
    for part in schema["allOf"].as_array().into_iter().flatten() {
        faults(api, part, value, at, found);
    }
    if let Some(options) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
        let fits = |option: &Value| {
            let mut inner = Vec::new();
            faults(api, option, value, at, &mut inner);
            inner.is_empty()
        };
        if !options.iter().any(fits) {
            found.push(format!("{at}: {value} fits none of {schema}"));
        }
        return;
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        found.push(format!("{at}: {value} is not one of {allowed:?}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        found.push(format!("{at}: {value} is not {}", schema["const"]));
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|name| is_of(value, name)) {
        found.push(format!("{at}: {value} is not of {types:?}"));
    }
    let members_max = schema["maxProperties"].as_u64();
    if let (Some(most), Some(members)) = (members_max, value.as_object())
        && members.len() as u64 > most
    {
        found.push(format!("{at}: {value} has more than {most} members"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            found.push(format!("{at}: lacks {name}"));
        }
    }
    if let (Some(known), Some(members)) = (schema["properties"].as_object(), value.as_object()) {
        for (name, member) in members {
            match known.get(name) {
                Some(schema) => faults(api, schema, member, &format!("{at}.{name}"), found),
                None => found.push(format!("{at}: {name} is not described")),
            }
        }
    }
    for item in value.as_array().into_iter().flatten() {
        faults(api, &schema["items"], item, &format!("{at}[]"), found);
    }
}

fn is_of(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "null" => value.is_null(),
        other => panic!("a type that this test does not know: {other}"),
    }
}

async fn api(house: &House) -> Value {
    house.get("/openapi.json").await.json()
}

#[tokio::test]
async fn the_document_is_openapi_3_1_at_both_mounts_with_a_page_that_loads_nothing_from_elsewhere() {
    let house = House::new().await;
    for mount in ["", "/api/widget"] {
        let document = house.get(&format!("{mount}/openapi.json")).await;
        let page = house.get(&format!("{mount}/docs")).await;

        assert_eq!(document.json()["openapi"], "3.1.0");
        assert_eq!(document.header("content-type"), Some("application/json"));
        assert_eq!(page.status, StatusCode::OK);
        assert!(!page.text.contains("://") && !page.text.contains("__NONCE__"));
        assert!(
            page.header("content-security-policy")
                .unwrap()
                .starts_with("default-src 'none'")
        );
    }
}

#[tokio::test]
async fn every_reference_of_the_document_leads_somewhere() {
    let product = api(&House::new().await).await;
    let graphs = Served::new().await.get("/openapi.json").await.ok();
    for api in [product, graphs] {
        let text = api.to_string();
        let references: Vec<&str> = text
            .split("\"$ref\":\"#")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();

        assert!(references.len() > 20);
        for reference in references {
            assert!(api.pointer(reference).is_some(), "{reference}");
        }
        for name in api["components"]["schemas"].as_object().unwrap().keys() {
            let is_allowed = |letter: char| letter.is_ascii_alphanumeric() || ".-_".contains(letter);
            assert!(name.chars().all(is_allowed), "{name}");
        }
    }
}

fn faults_of(api: &Value, component: &str, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let schema = json!({"$ref": format!("#/components/schemas/{component}")});
    faults(api, &schema, value, "it", &mut found);
    found
}

#[tokio::test]
async fn the_schemas_of_the_graphs_that_are_served_stand_in_the_document() {
    let served = Served::new().await;
    let api = served.get("/openapi.json").await.ok();
    let components = &api["components"]["schemas"];

    let input = &components["counter_loop.Input"]["properties"];
    assert_eq!(input["limit"]["default"], 3);
    assert!(input.get("trail").is_none(), "{input}");
    assert!(components["counter_loop.State"]["properties"]["trail"].is_object());
    let graphs = served.post("/assistants/count", json!({})).await.ok();
    assert_eq!(components["Run"]["anyOf"].as_array().unwrap().len(), graphs);
    let body = &api["paths"]["/threads/{id}/runs/wait"]["post"]["requestBody"]["content"]["application/json"];
    assert_eq!(body["schema"]["$ref"], "#/components/schemas/Run");

    let assistant = served.get("/assistants/counter_loop").await.ok();
    for named in [&json!("counter_loop"), &assistant["assistant_id"]] {
        let run = json!({"assistant_id": named, "input": {"limit": 2}});
        let input_alone = &components["counter_loop.Run"]["allOf"][1];
        let mut found = Vec::new();
        faults(&api, input_alone, &run, "run", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }
    let wrong = json!({"limit": "two"});
    assert_eq!(faults_of(&api, "counter_loop.Input", &wrong).len(), 1);
}

#[tokio::test]
async fn threads_and_states_are_as_the_document_says() {
    let served = Served::new().await;
    let api = served.get("/openapi.json").await.ok();
    for (graph, input) in [
        ("counter_loop", json!({"limit": 2})),
        ("approval", json!({"draft": "d"})),
    ] {
        let thread = served.thread().await;
        let state = format!("{thread}/state");
        let mut seen = vec![
            ("Thread", served.get(&thread).await.ok()),
            ("ThreadState", served.get(&state).await.ok()),
        ];
        let values = served
            .wait(&thread, json!({"assistant_id": graph, "input": input}))
            .await
            .ok();
        if graph == "counter_loop" {
            seen.push(("counter_loop.State", values.clone()));
        }
        seen.extend([
            ("RunValues", values),
            ("Thread", served.get(&thread).await.ok()),
            ("ThreadState", served.get(&state).await.ok()),
            ("History", served.get(&format!("{thread}/history?limit=9")).await.ok()),
            (
                "GraphSchemas",
                served.get(&format!("/assistants/{graph}/schemas")).await.ok(),
            ),
        ]);
        for (component, value) in seen {
            assert_eq!(
                faults_of(&api, component, &value),
                Vec::<String>::new(),
                "{component}: {value}"
            );
        }
    }
}

#[tokio::test]
async fn every_described_route_answers_and_every_route_of_the_contract_is_described() {
    let house = House::new().await;
    let api = api(&house).await;
    let mut described = Vec::new();
    for (path, operations) in api["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            described.push(format!("{method} {path}"));
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            for mount in ["", "/api/widget"] {
                let path = format!("{mount}{}", path.replace("{id}", "x"));
                let reply = house.send(request(method.clone(), &path, &[], String::new())).await;
                let is_there = reply.status != StatusCode::METHOD_NOT_ALLOWED
                    && !(reply.status == StatusCode::NOT_FOUND && reply.reason() == "unknown_route");
                assert!(is_there, "{method} {path}: {}", reply.text);
            }
        }
    }
    for route in [
        "post /chat",
        "post /chat/stream",
        "post /process-document",
        "get /documents/{id}/status",
        "post /internal/validate-client",
        "get /internal/client/{id}/config",
        "get /health",
        "get /",
        "post /feedback",
        "get /documents",
        "delete /documents/{id}",
        "post /embed",
        "get /openapi.json",
        "get /docs",
    ] {
        assert!(described.iter().any(|known| known == route), "{route} is not described");
    }
}

/// What is asked of which described path, in order.
fn calls(key: &str) -> [(Method, &'static str, &'static str, Value); 15] {
    let mut chat = chat_body("hi");
    chat["clientId"] = "acme".into();
    let mut failing = chat.clone();
    failing["message"] = "fail".into();
    let upload = crate::house::upload_body("acme", "d1", "words");
    [
        (Method::POST, "/chat", "/chat", chat.clone()),
        (Method::POST, "/chat", "/chat", failing),
        (Method::POST, "/process-document", "/process-document", upload),
        (
            Method::GET,
            "/documents/d1/status",
            "/documents/{id}/status",
            Value::Null,
        ),
        (Method::GET, "/documents?clientId=acme", "/documents", Value::Null),
        (
            Method::GET,
            "/documents?clientId=acme&limit=0",
            "/documents",
            Value::Null,
        ),
        (
            Method::DELETE,
            "/documents/d1?clientId=acme",
            "/documents/{id}",
            Value::Null,
        ),
        (
            Method::DELETE,
            "/documents/d1?clientId=acme",
            "/documents/{id}",
            Value::Null,
        ),
        (
            Method::POST,
            "/internal/validate-client",
            "/internal/validate-client",
            json!({"apiKey": key}),
        ),
        (
            Method::POST,
            "/internal/validate-client",
            "/internal/validate-client",
            json!({"apiKey": "pk_live_x"}),
        ),
        (
            Method::GET,
            "/internal/client/acme/config",
            "/internal/client/{id}/config",
            Value::Null,
        ),
        (Method::GET, "/health", "/health", Value::Null),
        (Method::GET, "/", "/", Value::Null),
        (
            Method::POST,
            "/embed",
            "/embed",
            json!({"clientId": "acme", "texts": ["a"]}),
        ),
        (
            Method::POST,
            "/feedback",
            "/feedback",
            json!({"clientId": "acme", "traceId": SESSION, "rating": "up"}),
        ),
    ]
}

#[tokio::test]
async fn real_answers_are_as_the_document_says() {
    let house = House::new().await;
    house.server.start_workers();
    let api = api(&house).await;
    house.chat.script("fail", &[Step::Fail(ErrorCode::LlmError)]);
    let mut seen = Vec::new();
    for (method, address, path, body) in calls(&house.key) {
        let headers = [("x-internal-secret", SECRET)];
        let reply = house
            .send(request(method.clone(), address, &headers, body.to_string()))
            .await;
        let operation = &api["paths"][path][method.as_str().to_lowercase()];
        let answer = if reply.status == StatusCode::OK {
            "200"
        } else {
            "default"
        };
        let schema = &operation["responses"][answer]["content"]["application/json"]["schema"];
        assert!(schema.is_object(), "{method} {path}: {operation}");

        let mut found = Vec::new();
        faults(&api, schema, &reply.json(), "answer", &mut found);

        assert_eq!(found, Vec::<String>::new(), "{method} {address}: {}", reply.text);
        let told = &operation["responses"][answer]["headers"];
        for name in ["x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"] {
            let is_told = told.get(name).is_some();
            assert!(is_told || reply.header(name).is_none(), "{method} {address}: {name}");
            assert!(
                !is_told || reply.status != StatusCode::OK || reply.header(name).is_some(),
                "{method} {address}: {name}"
            );
        }
        seen.push(reply.status.as_u16());
    }
    assert_eq!(
        seen,
        [
            200, 502, 200, 200, 200, 400, 200, 404, 200, 200, 200, 200, 200, 400, 404
        ]
    );
    house.server.drain().await;
}
