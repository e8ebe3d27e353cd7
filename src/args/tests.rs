use clap::CommandFactory as _;
use clap::error::ErrorKind;

use super::*;
use crate::simulator::Latency;

fn parsed(line: &str) -> Args {
    parse(std::iter::once("elements_exporter").chain(line.split_whitespace())).unwrap()
}

fn rejected(line: &str) -> clap::Error {
    parse(std::iter::once("elements_exporter").chain(line.split_whitespace())).unwrap_err()
}

#[test]
fn command_definition_is_valid() {
    Args::command().debug_assert();
}

#[test]
fn flags_have_defaults() {
    assert_eq!(
        parsed(""),
        Args {
            command: None,
            config_file: None,
            auto_reload: false,
            shard: Shard::WHOLE,
            web: Web {
                listen_addresses: vec![ListenAddress::All(10027)],
                config_file: None,
                telemetry_path: "/metrics".to_owned(),
                external_url: None,
                grafana_url: None,
                route_prefix: None,
                enable_lifecycle: false,
            },
            log: Log {
                level: Level::INFO,
                format: LogFormat::Logfmt,
            },
        }
    );
}

#[test]
fn flags_may_precede_or_follow_the_command() {
    let flags = "--config.file=a.yml --shard=1/3 --web.listen-address :1 --web.listen-address=[::1]:2 --web.config.file=w.yml \
                     --web.telemetry-path=/m --web.external-url=https://x.example.com/e/ --web.route-prefix=p/ \
                     --web.grafana-url=https://g.example.com/grafana \
                     --web.enable-lifecycle --log.level=DEBUG --log.format json";
    let args = parsed(&format!("{flags} check"));
    assert_eq!(args, parsed(&format!("check {flags}")));
    assert_eq!(
        args,
        Args {
            command: Some(Command::Check {
                output: Output::Text,
                offline: false,
            }),
            config_file: Some("a.yml".into()),
            auto_reload: false,
            shard: "1/3".parse().unwrap(),
            web: Web {
                listen_addresses: vec![ListenAddress::All(1), ListenAddress::Socket("[::1]:2".parse().unwrap()),],
                config_file: Some("w.yml".into()),
                telemetry_path: "/m".to_owned(),
                external_url: Some(Url::parse("https://x.example.com/e/").unwrap()),
                grafana_url: Some(Url::parse("https://g.example.com/grafana").unwrap()),
                route_prefix: Some("/p".to_owned()),
                enable_lifecycle: true,
            },
            log: Log {
                level: Level::DEBUG,
                format: LogFormat::Json,
            },
        }
    );
}

#[test]
fn commands_are_parsed_with_their_flags() {
    let simulator = Simulator {
        listen_address: ListenAddress::Socket("127.0.0.1:10028".parse().unwrap()),
        customers: 75,
        seed: 1,
        speed: 60.0,
        hostile: false,
        latency: Latency::None,
    };
    let command = |line: &str| parsed(line).command.unwrap();
    let demo = |line: &str| match command(line) {
        Command::Demo(demo) => (demo.backfill(), demo.simulator),
        other => panic!("{other:?}"),
    };
    assert_eq!(demo("demo"), (None, simulator.clone()));
    let backfill = Backfill {
        file: "past".into(),
        instance: "exporter:10027".to_owned(),
    };
    assert_eq!(
        demo("demo --backfill=past --backfill.instance=exporter:10027"),
        (Some(backfill), simulator)
    );
    assert_eq!(
        command(
            "simulate --simulator.listen-address :0 --simulator.customers=2 --simulator.seed 3 --simulator.speed=0.5 --simulator.hostile --simulator.latency=real"
        ),
        Command::Simulate(Simulator {
            listen_address: ListenAddress::All(0),
            customers: 2,
            seed: 3,
            speed: 0.5,
            hostile: true,
            latency: Latency::Real,
        })
    );
    let check = |output, offline| Command::Check { output, offline };
    assert_eq!(command("check --output=json"), check(Output::Json, false));
    assert_eq!(command("check --offline"), check(Output::Text, true));
    assert_eq!(command("schema"), Command::Schema);
    let customers = |output| Command::Customers { output };
    assert_eq!(command("customers"), customers(CustomerOutput::Table));
    assert_eq!(command("customers --output=CSV"), customers(CustomerOutput::Csv));
    assert_eq!(command("once"), Command::Once);
    assert_eq!(command("healthcheck"), Command::Healthcheck { ready: false });
    assert_eq!(command("healthcheck --ready"), Command::Healthcheck { ready: true });
    assert_eq!(command("man"), Command::Man);
    assert_eq!(command("completions fish"), Command::Completions { shell: Shell::Fish });
    let assets = |line| match command(line) {
        Command::Assets(assets) => assets,
        other => panic!("{other:?}"),
    };
    assert_eq!(assets("assets out").dir, Some("out".into()));
    let alerts = assets("assets --grafana-alerts=alerts --grafana-datasource=prom");
    assert_eq!((alerts.dir, alerts.grafana_alerts), (None, Some("alerts".into())));
    assert_eq!(alerts.grafana_datasource, "prom");
}

#[test]
fn demo_listens_on_loopback_by_default() {
    let addresses = |line: &str| parsed(line).web.listen_addresses;
    assert_eq!(
        addresses("demo"),
        [ListenAddress::Socket("127.0.0.1:10027".parse().unwrap())]
    );
    assert_eq!(
        addresses("demo --web.listen-address=:10027"),
        [ListenAddress::All(10027)]
    );
}

#[test]
fn boolean_flags_accept_a_value_like_go_flags() {
    let enabled = |line: &str| parsed(line).web.enable_lifecycle;
    let reloads = |line: &str| parsed(line).auto_reload;
    assert!(reloads("--config.auto-reload") && reloads("--config.auto-reload=true"));
    assert!(!reloads("--config.auto-reload=false"));
    assert!(enabled("--web.enable-lifecycle"));
    assert!(enabled("--web.enable-lifecycle=true once"));
    assert!(enabled("--web.enable-lifecycle once"));
    assert!(!enabled("--web.enable-lifecycle=false"));
}

#[test]
fn route_prefix_is_the_path_of_the_external_url() {
    let prefix = |line: &str| parsed(line).web.route_prefix().to_owned();
    assert_eq!(prefix("--web.external-url=https://x.example.com"), "");
    assert_eq!(prefix("--web.external-url=https://x.example.com/a/b/"), "/a/b");
    assert_eq!(
        prefix("--web.external-url=https://x.example.com/a --web.route-prefix=/"),
        ""
    );
}

#[test]
fn help_and_version_exit_with_0() {
    for line in ["--version", "demo --version"] {
        let version = rejected(line);
        assert_eq!(version.kind(), ErrorKind::DisplayVersion);
        assert_eq!(exit_code(&version), 0);
        assert_eq!(
            version.to_string(),
            format!("elements_exporter, version {VERSION} (revision: {REVISION}, rustversion: {RUSTVERSION})\n")
        );
    }
    for line in ["--help", "demo --help"] {
        let help = rejected(line);
        assert_eq!(exit_code(&help), 0);
        assert!(help.to_string().contains("Usage: elements_exporter"), "{help}");
    }
}

#[test]
fn invalid_usage_exits_with_64() {
    for line in [
        "frobnicate",
        "assets",
        "--web.telemetry-path=metrics",
        "--web.telemetry-path=/",
        "--web.telemetry-path=/-/healthy",
        "--web.telemetry-path=/rules",
        "--web.telemetry-path=/{m}",
        "--web.route-prefix=/{p}",
        "--web.external-url=example.com",
        "--web.external-url=https://x.example.com/?orgId=1",
        "--web.external-url=https://x.example.com/#top",
        "--web.external-url=https://user:secret@x.example.com",
        "--web.grafana-url=grafana.example.com",
        "--web.grafana-url=ftp://grafana.example.com",
        "--web.grafana-url=javascript:alert(1)",
        "--web.grafana-url=https://user:secret@grafana.example.com",
        "--web.grafana-url=https://grafana.example.com/?orgId=1",
        "--web.listen-address=localhost",
        "--web.enable-lifecycle=maybe",
        "--log.level=loud",
        "--log.format=xml",
        "--simulator.seed=1",
        "demo --simulator.speed=0",
        "demo --backfill.instance=exporter:10027",
        "simulate --backfill=past",
        "--auth.client-secret=x",
    ] {
        assert_eq!(exit_code(&rejected(line)), USAGE_EXIT_CODE, "{line}");
    }
    let shown = rejected("--web.listen-address=localhost").to_string();
    assert!(shown.contains("expected HOST:PORT, such as 127.0.0.1:10027"), "{shown}");
}
