//! The private servers start, keep what they were told, and leave nothing behind.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod live {
    use std::{
        io::{BufRead as _, BufReader},
        path::Path,
        process::{Command, Stdio},
        time::Duration,
    };

    use sqlx::{Connection as _, PgConnection};
    use stepgraph_live::{Fsync, Origin, Postgres, Redis, Tools};

    /// Says to this test's own binary that it is the process that will be killed.
    const VICTIM: &str = "STEPGRAPH_LIVE_VICTIM";
    const GONE_LOOKS_MAX: u32 = 1_000;

    async fn version(server: &Postgres) -> String {
        let url = server.database().await.unwrap();
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::query_scalar("SHOW server_version")
            .fetch_one(&mut connection)
            .await
            .unwrap()
    }

    fn goes_away(path: &Path) -> bool {
        (0..GONE_LOOKS_MAX).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            !path.exists()
        })
    }

    #[tokio::test]
    async fn postgres_starts_from_the_wheel_too() {
        let tools = Tools::from(Origin::Wheels, "postgres").unwrap();
        let server = Postgres::start_from(tools).unwrap();
        assert!(version(&server).await.starts_with("18."));
    }

    #[test]
    fn redis_starts_from_the_wheel_too() {
        let tools = Tools::from(Origin::Wheels, "redis-server").unwrap();
        let server = Redis::start_with(&tools, Fsync::Never, &[]).unwrap();
        assert!(server.url().starts_with("redis+unix:///"));
    }

    #[tokio::test]
    async fn each_database_is_new_and_what_was_killed_starts_again_with_its_data() {
        let mut server = Postgres::start().unwrap();
        let (one, two) = (server.database().await.unwrap(), server.database().await.unwrap());
        assert_ne!(one, two);
        let mut connection = PgConnection::connect(&one).await.unwrap();
        sqlx::query("CREATE TABLE kept (id INT)")
            .execute(&mut connection)
            .await
            .unwrap();
        server.kill().unwrap();
        assert!(server.kill().is_err(), "it is killed once");
        assert!(PgConnection::connect(&one).await.is_err());
        server.start_again().unwrap();
        let mut connection = PgConnection::connect(&one).await.unwrap();
        sqlx::query("SELECT id FROM kept")
            .execute(&mut connection)
            .await
            .unwrap();
        let socket = server.socket();
        drop(server);
        assert!(!socket.exists());
    }

    #[test]
    fn servers_end_with_the_process_that_started_them_even_when_it_is_killed() {
        if std::env::var_os(VICTIM).is_some() {
            let postgres = Postgres::start().unwrap();
            let redis = Redis::start(Fsync::Always).unwrap();
            println!("\nsocket {}", postgres.socket().display());
            println!("\nsocket {}", redis.socket().display());
            loop {
                std::thread::park();
            }
        }
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "--nocapture"])
            .arg("live::servers_end_with_the_process_that_started_them_even_when_it_is_killed")
            .env(VICTIM, "")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let named = lines.filter_map(|line| line.unwrap().strip_prefix("socket ").map(ToOwned::to_owned));
        let sockets: Vec<_> = named.take(2).collect();
        assert_eq!(sockets.len(), 2);
        victim.kill().unwrap();
        victim.wait().unwrap();
        for socket in sockets {
            let folder = Path::new(&socket).parent().unwrap();
            assert!(goes_away(folder), "{socket} is still there");
        }
    }

    #[test]
    fn a_program_that_is_nowhere_is_named_with_the_line_to_type() {
        let missing = Tools::of("no-such-server").unwrap_err().to_string();
        assert!(
            missing.contains("missing: no-such-server") && missing.contains("apt-get install"),
            "{missing}"
        );
    }
}
