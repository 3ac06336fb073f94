//! Threads that were kept before there was a key are sealed by `threads seal`.

use std::process::Command;

use super::support::{Home, Ran};

const KEY: &str = "1:q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
const SESSION: &str = "018f6c1e-7b3a-4c52-9d1e-0a2b3c4d5e6f";

/// Asks in one session, with this key or without any.
fn asked(command: &mut Command, key: Option<&str>) -> Ran {
    Ran::of(command.envs(key.map(|key| ("STEPGRAPH_CHECKPOINTS_KEY", key))))
}

fn seals(keep: impl Fn(&mut Command)) {
    let home = Home::with_tenant();
    home.run(["tenant", "add", "other"]).ok();
    let run = |arguments: &[&str], key: Option<&str>| {
        let mut command = home.command(arguments);
        keep(&mut command);
        asked(&mut command, key)
    };
    let chat = |tenant: &str, key: Option<&str>| {
        let words = "how long is the warranty?";
        run(&["chat", "--tenant", tenant, "--session", SESSION, words], key)
    };
    for tenant in ["acme", "other"] {
        chat(tenant, None).ok();
    }
    let refused = chat("acme", Some(KEY)).refused();
    assert!(refused.stderr.contains("seal"), "{refused:?}");
    let without = run(&["threads", "seal"], None);
    assert_eq!(without.code, Some(2), "{without:?}");
    assert!(without.stderr.contains("STEPGRAPH_CHECKPOINTS_KEY"), "{without:?}");
    run(&["threads", "seal", "--tenant", "nobody"], Some(KEY)).refused();

    let one = run(&["threads", "seal", "--tenant", "acme", "--json"], Some(KEY))
        .ok()
        .json();
    let all = run(&["threads", "seal", "--json"], Some(KEY)).ok().json();
    let again = run(&["threads", "seal"], Some(KEY)).ok();

    let counts = |told: &serde_json::Value| [&told["sealed"], &told["already"]].map(|count| count.as_u64().unwrap());
    let ([sealed, already], [others, before]) = (counts(&one[0]), counts(&all[0]));
    assert!(sealed > 0 && already == 0 && one[0]["done"] == true, "{one:?}");
    assert_eq!(
        (others, before),
        (sealed, sealed),
        "the other tenant has as many: {all:?}"
    );
    assert!(again.stdout.starts_with("0 threads are sealed now"), "{again:?}");
    for tenant in ["acme", "other"] {
        chat(tenant, Some(KEY)).ok();
    }
    chat("acme", None).refused();
}

#[test]
fn threads_in_the_data_folder_are_sealed_and_their_sessions_go_on() {
    seals(|_| {});
}

mod live {
    use stepgraph_live::{Fsync, Postgres, Redis};

    use super::seals;

    const SETTING: &str = "STEPGRAPH_CHECKPOINTS_URL";

    #[test]
    fn threads_in_postgres_are_sealed_and_their_sessions_go_on() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let url = runtime
            .unwrap()
            .block_on(Postgres::shared().unwrap().database())
            .unwrap();
        seals(|command| {
            command.env(SETTING, &url);
        });
    }

    #[test]
    fn threads_in_redis_are_sealed_and_their_sessions_go_on() {
        let server = Redis::start(Fsync::Always).unwrap();
        seals(|command| {
            command.env(SETTING, server.url());
        });
    }
}
