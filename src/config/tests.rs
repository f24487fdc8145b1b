//! Files, environments and flags in; a configuration, or the lines that a person reads, out.

use proptest::prelude::*;

use super::reader::{KeyPath, walk};
use super::values::Parse;
use super::*;

const KIEGATE: &str = include_str!("../../config/kiegate.toml");
const LIVE: &str = include_str!("../../config/live.toml");
const CLUSTER: &str = include_str!("../../config/cluster.toml");

/// The variables that the examples refer to.
const SET: [(&str, &str); 6] = [
    ("KIEGATE_ADMIN_TOKEN", "operators-only"),
    ("KIE_API_KEY", "fake-key-1"),
    ("KIE_API_KEY_2", "fake-key-2"),
    ("KIE_WEBHOOK_KEY", "fake-webhook-key"),
    ("REDIS_URL", "redis://:password@127.0.0.1:6379/0"),
    ("VIDEO_TEAM_WEBHOOK_KEY", "fake-team-key"),
];

const HASH: &str = "sha256:00000000000000000000000000000000000000000000000000000000000000aa";

fn read(
    file: &str,
    environment: &[(&str, &str)],
    flags: &[(&'static str, &str)],
) -> Result<Config, ConfigError> {
    let pair = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
    let flag = |(key, text): &(&'static str, &str)| (*key, (*text).to_owned());
    let file = (!file.is_empty()).then(|| ("k.toml".into(), file.to_owned()));
    let environment = environment.iter().map(pair).collect();
    Sources { file, environment, flags: flags.iter().map(flag).collect() }.read()
}

/// The lines printed for `file` alone.
#[track_caller]
fn lines(file: &str) -> Vec<String> {
    lines_of(read(file, &SET, &[]))
}

#[track_caller]
fn lines_of(result: Result<Config, ConfigError>) -> Vec<String> {
    result.map_or_else(|error| error.to_string().lines().map(str::to_owned).collect(), |_| Vec::new())
}

#[track_caller]
fn check(file: &str, expected: &[&str]) {
    assert_eq!(lines(file), expected, "for\n{file}");
}

#[test]
fn every_problem_is_told_at_once_with_its_line() {
    check(
        "mode = \"mokc\"\nlisten = 8787\n[mock]\npcae = \"fast\"\nseed = -1\nfailure_rate = 1.5\n[logs]\nlevel = \"info\"\n",
        &[
            "k.toml:1: mode: \"mokc\" is not one of: mock live record replay; did you mean \"mock\"?",
            "k.toml:2: listen: expected an address and port such as \"127.0.0.1:8787\", found a whole number",
            "k.toml:4: mock.pcae: unknown key; did you mean \"pace\"?",
            "k.toml:5: mock.seed: -1 is not in the range 0 to 18446744073709551615",
            "k.toml:6: mock.failure_rate: 1.5 is not in the range 0 to 1",
            "k.toml:7: logs: unknown key; did you mean \"log\"?",
        ],
    );
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_known_one() {
    check(
        "[tenant]\nid = \"a\"",
        &["k.toml:1: tenant: expected a list of tables, found one table; write [[tenant]]"],
    );
    check("[mock]\npaces = 1", &["k.toml:2: mock.paces: unknown key; did you mean \"pace\"?"]);
    check(
        "[[tenant]]\nid = \"a\"\nkey = []",
        &["k.toml:3: tenant[0].key: unknown key; did you mean \"keys\"?"],
    );
    check("pace = \"fast\"", &["k.toml:1: pace: unknown key; did you mean \"mock.pace\"?"]);
    check("[log]\ncolour = 1", &["k.toml:2: log.colour: unknown key; there are: format, level"]);
    check(
        "[[tenant]]\nid = \"a\"\nkyes = []\n\"a.b\\u001b\" = 1",
        &[
            "k.toml:3: tenant[0].kyes: unknown key; did you mean \"keys\"?",
            "k.toml:4: tenant[0].\"a.b\\u{1b}\": unknown key; there are: allow, callbacks, deny, id, ip_allow, keys, \
             limits, mode, upstream_keys, weight",
        ],
    );
}

#[test]
fn text_that_is_no_toml_is_answered_with_every_line_that_is_wrong() {
    let found = lines("mode = \nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n[mock\n");
    assert!(found.len() >= 3, "{found:#?}");
    let at = |line: &str| found.iter().any(|found| found.starts_with(line));
    assert!(at("k.toml:1: ") && at("k.toml:3: duplicate key") && at("k.toml:4: "), "{found:#?}");
}

#[test]
fn a_wrong_value_is_answered_with_what_to_write() {
    let one_each = [
        ("listen = \":80\"", "write \"127.0.0.1:80\" for this machine only, \"0.0.0.0:80\" for everyone"),
        ("public_url = \"https://kie.example.com/api\"", "did you mean \"https://kie.example.com\"?"),
        ("public_url = \"kie.example.com\"", "it must begin with http:// or https://"),
        ("public_url = \"https://kie.example.com?a=b\"", "leave out what follows ? or #"),
        ("shutdown_grace = \"30\"", "did you mean \"30s\"?"),
        ("mock.latency = \"2s..1s\"", "did you mean \"1s..2s\"?"),
        ("log.level = \"wran\"", "did you mean \"warn\"?"),
        ("admin.token = \"hunter2\"", "write \"env:NAME\" or \"file:/path\""),
    ];
    for (file, hint) in one_each {
        let found = lines(file);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(found[0].ends_with(&format!("; {hint}")), "{}", found[0]);
        assert!(!found[0].contains("hunter2"), "a secret was printed: {}", found[0]);
    }
}

#[test]
fn what_may_be_a_secret_is_not_printed() {
    let files = [
        "public_url = \"https://me:hunter2@kie.example.com\"",
        "[[tenant]]\nid = \"a\"\nkeys = [\"hunter2\"]",
        "[[upstream.key]]\nname = \"main\"\nsecret = \"hunter2\"",
        "[store]\nredis = \"redis://:hunter2@127.0.0.1\"",
    ];
    for file in files {
        let found = lines(file).join("\n");
        assert!(!found.is_empty() && !found.contains("hunter2"), "{found}");
    }
    let found = lines_of(read("store.redis = \"env:REDIS\"", &[("REDIS", "hunter2")], &[])).join("\n");
    assert!(found.contains("not a URL") && !found.contains("hunter2"), "{found}");
}

#[test]
fn names_and_keys_are_used_once_and_exist() {
    let file = format!(
        "[[upstream.key]]\nname = \"main\"\nsecret = \"env:KIE_API_KEY\"\n\
         [[upstream.key]]\nname = \"main\"\nsecret = \"env:KIE_API_KEY_2\"\n\
         [[tenant]]\nid = \"a\"\nkeys = [\"{HASH}\"]\nupstream_keys = [\"mian\"]\n\
         [[tenant]]\nid = \"a\"\nkeys = [{{ hash = \"{HASH}\" }}]\n[[tenant]]\nid = \"A Team\"\n[[tenant]]\n\
         [[tenant]]\nid = \"other\"\nupstream_keys = []\n"
    );
    let invalid = invalid(&read(&file, &SET, &[]));
    let expected = [
        "k.toml:5: upstream.key[1].name: used twice, first at k.toml:2",
        "k.toml:10: tenant[0].upstream_keys[0]: no [[upstream.key]] is called \"mian\"; did you mean \"main\"?",
        "k.toml:12: tenant[1].id: used twice, first at k.toml:8",
        "k.toml:13: tenant[1].keys[0].hash: used twice, first at k.toml:9",
        "k.toml:15: tenant[2].id: \"A Team\" is not a name of 1 to 64 of a-z, 0-9, - and _; did you mean \"a-team\"?",
        "k.toml:16: tenant[3].id: missing",
        "k.toml:18: tenant[4].id: \"other\" stands for whoever is no tenant",
        "k.toml:19: tenant[4].upstream_keys: names no key; leave it out to allow all of them",
    ];
    assert_eq!(invalid, expected);
}

/// The lines of those problems that are not merely too early.
fn invalid(result: &Result<Config, ConfigError>) -> Vec<String> {
    let problems = result.as_ref().map_or_else(ConfigError::problems, |_| &[]);
    let invalid = problems.iter().filter(|problem| problem.kind == ProblemKind::Invalid);
    invalid.map(ToString::to_string).collect()
}

#[test]
fn a_secret_is_taken_from_the_environment_or_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("token");
    let file = format!("admin.token = \"file:{}\"", path.display());
    let token = |file: &str, set: &[(&str, &str)]| read(file, set, &[]).unwrap().admin.token.unwrap();
    for (written, expected) in [("abc\n", "abc"), ("abc\r\n", "abc"), ("abc", "abc"), (" a b ", " a b ")] {
        std::fs::write(&path, written).unwrap();
        assert_eq!(token(&file, &[]).expose(), expected);
    }
    assert_eq!(token("admin.token = \"env:T\"", &[("T", "abc")]).expose(), "abc");
    assert_eq!(token("", &[("KIEGATE_ADMIN__TOKEN", "env:T"), ("T", "abc")]).expose(), "abc");
    assert_eq!(token("", &[("KIEGATE_ADMIN__TOKEN", "abc")]).expose(), "abc");

    let wrong = |written: &[u8], what: &str| {
        std::fs::write(&path, written).unwrap();
        let found = lines(&file).join("\n");
        assert!(found.ends_with(what), "{found}");
    };
    wrong(b"", "token is empty");
    wrong(b"abc\n\n", "token contains a line break or another control character");
    wrong(b"\xff", "token is not UTF-8 text");
    wrong(&vec![b'a'; 70_000], "token is larger than any secret (64 KiB)");
    check("admin.token = \"env:NOT_THERE\"", &["k.toml:1: admin.token: env:NOT_THERE is not set"]);
    let missing = lines("admin.token = \"file:/not/there\"").join("");
    assert!(missing.starts_with("k.toml:1: admin.token: file:/not/there cannot be read: "), "{missing}");
    let flag = lines_of(read("", &[], &[("admin.token", "abc")]));
    assert_eq!(
        flag,
        [
            "--admin-token: admin.token: a secret is not written down here; write \"env:NAME\" or \"file:/path\""
        ]
    );
}

#[test]
fn a_file_that_cannot_be_used_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let told = |path: &Path| lines_of(load(Some(path), [], [])).join("\n");
    let path = dir.path().join("k.toml");
    assert!(told(&path).contains("k.toml: cannot be read: "));
    assert!(told(dir.path()).ends_with(": is a directory; name a file in it"));
    for (bytes, what) in [
        (&b" \n"[..], "k.toml: is empty; name no file to get the defaults"),
        (b"mode = 1\n# \xff", "k.toml: is not UTF-8 text (line 2)"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        assert!(told(&path).ends_with(what), "{}", told(&path));
    }
    std::fs::write(&path, "\u{feff}mode = \"mock\"\r\n[mock]\r\nseed = 7\r\n").unwrap();
    assert_eq!(load(Some(&path), [], []).unwrap().mock.seed, 7);
}

#[test]
fn flags_win_over_environment_over_file_over_defaults() {
    let file = "mock.pace = \"realistic\"";
    let pace = |file, environment: &[_], flags: &[_]| read(file, environment, flags).unwrap().mock.pace;
    let (variable, flag) = (("KIEGATE_MOCK__PACE", "instant"), ("mock.pace", "fast"));
    assert_eq!(pace("", &[], &[]), Pace::Fast);
    assert_eq!(pace(file, &[], &[]), Pace::Realistic);
    assert_eq!(pace(file, &[variable], &[]), Pace::Instant);
    assert_eq!(pace(file, &[variable], &[flag]), Pace::Fast);
    assert_eq!(pace(file, &[("KIEGATE_MOCK__PACE", "")], &[]), Pace::Realistic, "empty is not set");
}

#[test]
fn the_environment_can_say_all_that_a_file_can() {
    let second = HASH.replace("aa", "bb");
    let keys = format!("{HASH}, {second}");
    let environment = [
        ("KIEGATE_MODE", "live"),
        ("KIEGATE_UPSTREAM__BASE_URL", "http://127.0.0.1:9"),
        ("KIEGATE_UPSTREAM__KEY__0__SECRET", "env:KIE_API_KEY"),
        ("KIEGATE_UPSTREAM__KEY__0__NAME", "main"),
        ("KIEGATE_TENANT__0__ID", "a"),
        ("KIEGATE_TENANT__0__KEYS", keys.as_str()),
        ("KIEGATE_MOCK__OPEN", "false"),
        ("KIEGATE_MOCK__SEED", "7"),
        ("KIEGATE_MOCK__CREDITS", "12.5"),
        ("KIE_API_KEY", "fake-key"),
    ];
    let config = read("", &environment, &[]).unwrap();
    assert_eq!((config.mode, config.mock.open, config.mock.seed), (Mode::Live, false, 7));
    assert_eq!(config.mock.credits, Credits::from_f64(12.5).unwrap());
    assert_eq!(config.upstream.base_url, "http://127.0.0.1:9");
    assert_eq!(config.upstream.keys[0].secret.expose(), "fake-key");
    assert_eq!(config.tenants[0].keys.len(), 2);
}

#[test]
fn eleven_items_come_in_the_order_of_their_numbers() {
    let names: Vec<_> =
        (0..11).map(|index| (format!("KIEGATE_TENANT__{index}__ID"), format!("t{index}"))).collect();
    let environment: Vec<_> = names.iter().map(|(name, id)| (name.as_str(), id.as_str())).collect();
    assert_eq!(read("", &environment, &[]).unwrap().tenants[10].id.as_str(), "t10");
}

#[test]
fn a_variable_that_is_no_setting_is_a_problem_unless_it_is_for_others() {
    let told = |environment: &[_]| lines_of(read("", environment, &[]));
    let typo = "KIEGATE_MOCK__PCAE: mock.pcae: unknown key; did you mean KIEGATE_MOCK__PACE?";
    assert_eq!(told(&[("KIEGATE_MOCK__PCAE", "fast")]), [typo]);
    let levels = "KIEGATE_MOCK_PACE: mock_pace: unknown key; did you mean KIEGATE_MOCK__PACE?";
    assert_eq!(told(&[("KIEGATE_MOCK_PACE", "fast")]), [levels]);
    let table = "KIEGATE_LOG: log: expected a table, found text";
    assert_eq!(told(&[("KIEGATE_LOG", "debug")]), [table]);
    let gap = "KIEGATE_TENANT__1__ID: tenant.1.id: \"1\" is not one of the list's 0 items, nor the next, 0";
    assert_eq!(told(&[("KIEGATE_TENANT__1__ID", "a")]), [gap]);
    let below =
        "KIEGATE_MOCK__PACE__X: mock.pace.x: there is nothing below text, written at KIEGATE_MOCK__PACE";
    assert_eq!(told(&[("KIEGATE_MOCK__PACE", "fast"), ("KIEGATE_MOCK__PACE__X", "1")]), [below]);
    assert_eq!(told(&[(&format!("KIEGATE_{}", "A__".repeat(50_000)), "1")]).len(), 1);

    let others = [
        ("KIEGATE_ADMIN_TOKEN", "abc"),
        ("KIEGATE_BIN", "/usr/local/bin/kiegate"),
        ("KIEGATE_URL", "http://127.0.0.1:8787"),
        ("KIEGATE_SERVICE_HOST", "10.0.0.1"),
        ("KIEGATE_PORT_8787_TCP_ADDR", "10.0.0.1"),
        ("KIEGATE_ADMIN_SERVICE_PORT", "8788"),
        ("KIEGATE_TEAM_TOKEN", "abc"),
        ("KIE_API_KEY", "abc"),
        ("PATH", "/bin"),
    ];
    assert!(read("admin.token = \"env:KIEGATE_TEAM_TOKEN\"", &others, &[]).is_ok());
}

#[test]
fn what_has_no_effect_yet_is_refused_by_every_layer() {
    check("[store]\non_outage = \"local\"", &["k.toml:2: store.on_outage: not available yet"]);
    check(
        "[store]\non_outage = \"panic\"",
        &[
            "k.toml:2: store.on_outage: \"panic\" is not one of: local refuse",
            "k.toml:2: store.on_outage: not available yet",
        ],
    );
    let variable = lines_of(read("", &[("KIEGATE_DATA_DIR", "/tmp")], &[]));
    assert_eq!(variable, ["KIEGATE_DATA_DIR: data_dir: not available yet"]);
    let flag = lines_of(read("", &[], &[("data_dir", "/tmp")]));
    assert_eq!(flag, ["--data-dir: data_dir: not available yet"]);
}

#[test]
fn a_recording_is_named_where_it_is_used_and_nowhere_else() {
    let hint = "add recording = \"session.har\", or say --recording session.har";
    check("mode = \"replay\"", &[&format!("k.toml:1: mode: \"replay\" needs a recording; {hint}")]);
    let hint = "say mode = \"record\" to write it, mode = \"replay\" to be answered from it";
    check("recording = \"a.har\"", &[&format!("k.toml:1: recording: nobody writes or replays it; {hint}")]);
    assert!(read("mode = \"replay\"", &[], &[("recording", "a.har")]).is_ok());
    let mixed =
        "mode = \"mock\"\nrecording = \"a.har\"\n[[tenant]]\nid = \"ci\"\nmode = \"replay\"\nkeys = []";
    assert!(read(mixed, &[], &[]).is_ok());
}

#[test]
fn live_mode_needs_a_key_to_spend_and_someone_to_trust() {
    let told = lines("mode = \"live\"\n[admin]\nlisten = \"0.0.0.0:8788\"");
    assert_eq!(
        told,
        [
            "k.toml:1: mode: \"live\" needs a tenant with a key; anyone could spend the account's credits; add [[tenant]] \
         with an id and keys = [\"sha256:…\"]",
            "k.toml:1: mode: \"live\" needs an upstream key; add [[upstream.key]] with name = \"main\" and secret = \
         \"env:KIE_API_KEY\"",
            "k.toml:3: admin.listen: 0.0.0.0:8788 is open to others, without a token; set admin.token = \
         \"env:KIEGATE_ADMIN_TOKEN\", or listen on 127.0.0.1",
        ]
    );
    assert!(
        read("[admin]\nlisten = \"0.0.0.0:8788\"", &[], &[]).is_ok(),
        "in mock mode there is nothing to guard"
    );
    let file = "mode = \"live\"\n[[upstream.key]]\nname = \"main\"\nsecret = \"env:NO\"\n[[tenant]]\nid = \"a\"\nkeys = [\"x\"]";
    assert_eq!(lines(file).len(), 2, "what is there and wrong is not also missing: {:#?}", lines(file));
}

#[test]
fn two_planes_do_not_share_an_address() {
    let what = "the data plane and the admin plane both listen on 127.0.0.1:8788";
    check("listen = \"127.0.0.1:8788\"", &[&format!("k.toml:1: listen: {what}")]);
    check("admin.listen = \"127.0.0.1:0\"\nlisten = \"127.0.0.1:0\"", &[]);
}

#[test]
fn the_default_file_says_the_defaults() {
    assert_eq!(read(KIEGATE, &[], &[]).unwrap(), Config::default());
    let config = Config::default();
    assert_eq!((config.mode, config.listen), (Mode::Mock, "127.0.0.1:8787".parse().unwrap()));
    assert_eq!((config.admin.listen.port(), config.mock.pace, config.mock.seed), (8788, Pace::Fast, 42));
    assert_eq!(
        (config.mock.credits, config.mock.webhook_secret.expose()),
        (Credits::whole(10_000), "mock-webhook-key")
    );
}

#[test]
fn the_live_example_works_once_its_variables_are_set() {
    let config = read(LIVE, &SET, &[]).unwrap();
    assert_eq!((config.mode, config.tenants.len(), config.upstream.keys.len()), (Mode::Live, 2, 1));
    assert_eq!(config.tenants[1].keys[0].expires.unwrap().to_rfc3339(), "2027-01-01T00:00:00.000Z");
    let without = invalid(&read(LIVE, &[], &[]));
    assert!(without.iter().all(|line| line.ends_with(" is not set")) && without.len() == 4, "{without:#?}");
}

#[test]
fn the_cluster_example_is_only_too_early() {
    assert_eq!(invalid(&read(CLUSTER, &SET, &[])), [""; 0]);
}

/// The file with every `# key = …` and `# [table]` made a setting.
fn uncommented(file: &str) -> String {
    let setting = |line: &&str| {
        let key = line.split(' ').next().unwrap_or_default();
        let is_name = |text: &str| text.chars().all(|sign| sign.is_ascii_lowercase() || "_.".contains(sign));
        line.starts_with('[') || !key.is_empty() && is_name(key) && line[key.len()..].starts_with(" = ")
    };
    let line = |line| str::strip_prefix(line, "# ").filter(setting).unwrap_or(line);
    file.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The default file is the documentation: it names every key that is read, and no other.
#[test]
fn the_default_file_names_every_key_and_no_other() {
    // A recording is named only where one is used.
    let file = uncommented(KIEGATE).replacen("mode = \"mock\"", "mode = \"replay\"", 1);
    assert_eq!(invalid(&read(&file, &SET, &[])), [""; 0]);

    let environment = SET.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    let desk = Desk::new(&environment);
    let tree = Node::from_toml(Path::new("k.toml"), &file).unwrap();
    sections::config(&desk.root(&tree));
    let mut named = BTreeSet::new();
    walk(&tree, &KeyPath::default(), &mut |path, _| {
        named.insert(path.pattern.clone());
        true
    });
    let silent: Vec<_> = desk.known().into_iter().filter(|key| !named.contains(key)).collect();
    assert_eq!(silent, [""; 0], "not in config/kiegate.toml");
    let gone: Vec<_> = availability::keys().filter(|key| !desk.known().contains(*key)).collect();
    assert_eq!(gone, [""; 0], "not available yet, and no key at all");
}

/// Uncommenting all of it is refused for each line of the table of what has no effect yet, and for nothing
/// else.
#[test]
fn what_is_commented_out_is_only_too_early() {
    let told = lines(&uncommented(KIEGATE)).join("\n").replace("[0]", "[]");
    for key in availability::keys() {
        assert!(told.contains(&format!(" {key}: not available yet")), "{key} in\n{told}");
    }
    for (example, text) in [("live", LIVE), ("cluster", CLUSTER)] {
        let invalid = invalid(&read(&uncommented(text), &SET, &[]));
        assert_eq!(invalid, [""; 0], "{example}");
    }
}

/// One tenant in a paid mode is enough for all that a paid mode needs.
#[test]
fn a_tenant_in_live_mode_needs_an_upstream_key() {
    let told = lines("[[tenant]]\nid = \"a\"\nmode = \"live\"\nkeys = []\n");
    assert!(told.iter().any(|line| line.contains("\"live\" needs an upstream key")), "{told:?}");
}

#[test]
fn the_redacted_configuration_shows_every_key_and_no_secret() {
    let file = uncommented(KIEGATE);
    let environment = SET.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    let desk = Desk::new(&environment);
    let tree = Node::from_toml(Path::new("k.toml"), &file).unwrap();
    let json = sections::config(&desk.root(&tree)).redacted_json();
    for key in desk.known() {
        let shown = json
            .pointer(&format!("/{}", key.replace("keys[]", "keys.1").replace("[]", ".0").replace('.', "/")));
        assert!(shown.is_some_and(|value| !value.is_null()), "{key} is {shown:?}");
    }
    let text = json.to_string();
    for (name, secret) in SET {
        assert!(!text.contains(secret), "{name} is shown");
    }
    assert_eq!(json["upstream"]["key"][0]["secret"], "***");
    assert_eq!(json["tenant"][0]["limits"]["creates"]["limit"], "10/10s burst 10");
    assert_eq!(Config::default().redacted_json()["mock"]["latency"], "0s");
}

fn limits(text: &str) -> Limits {
    let text = format!("[[tenant]]\nid = \"a\"\n[tenant.limits]\n{text}");
    let environment = BTreeMap::new();
    let desk = Desk::new(&environment);
    let tree = Node::from_toml(Path::new("k.toml"), &text).unwrap();
    let limits = sections::config(&desk.root(&tree)).tenants.remove(0).limits;
    assert!(desk.into_problems().is_empty());
    limits
}

#[test]
fn limits_are_read_in_both_forms() {
    let limits = limits(
        "concurrent_tasks = { limit = 3, shadow = true }\nrequests = \"50/s burst 200\"\ncredits.day = { limit = 0.5 }",
    );
    assert_eq!(limits.concurrent_tasks, Some(Limit { limit: NonZeroU32::new(3).unwrap(), shadow: true }));
    assert_eq!(limits.requests.unwrap().limit.burst.get(), 200);
    assert_eq!(limits.credits_day, Some(Limit { limit: Credits::from_f64(0.5).unwrap(), shadow: false }));
    let missing = invalid(&read("[[tenant]]\nid = \"a\"\nlimits.creates = { shadow = true }", &[], &[]));
    assert_eq!(missing, ["k.toml:3: tenant[0].limits.creates.limit: missing"]);
}

#[test]
fn credits_are_tried_out_for_all_windows_or_for_one() {
    let of = |text| {
        let Limits { credits_hour, credits_day, credits_month, .. } = limits(text);
        [credits_hour, credits_day, credits_month]
            .map(|limit| limit.map(|limit| (limit.limit.as_f64(), limit.shadow)))
    };
    let (one, two) = (Some((1.0, true)), Some((2.0, true)));
    assert_eq!(of("credits = { limit = { hour = 1, day = 2 }, shadow = true }"), [one, two, None]);
    assert_eq!(
        of("credits = { hour = { limit = 1, shadow = true }, day = 2 }"),
        [one, Some((2.0, false)), None]
    );
    let mixed =
        invalid(&read("[[tenant]]\nid = \"a\"\nlimits.credits = { hour = 1, shadow = true }", &[], &[]));
    assert!(mixed[0].contains("shadow"), "{mixed:?}");
}

#[track_caller]
fn parses<T: Parse, U: PartialEq + std::fmt::Debug>(table: &[(&str, Option<U>)], value: impl Fn(T) -> U) {
    for (text, expected) in table {
        assert_eq!(T::parse(text).ok().map(&value), *expected, "{text:?}");
    }
}

#[test]
fn durations_sizes_and_rates_mean_what_they_say() {
    parses(
        &[
            ("500ms", Some(500)),
            ("0s", Some(0)),
            ("1.5s", Some(1500)),
            ("1m30s", Some(90_000)),
            ("7d", Some(604_800_000)),
            ("", None),
            ("s", None),
            ("5", None),
            ("-5s", None),
            ("5 s", None),
            ("1.0001s", None),
            ("99999d", None),
            ("99999999999999999999d", None),
        ],
        |duration: Duration| duration.as_millis(),
    );
    parses(
        &[
            ("64MiB", Some(67_108_864)),
            ("1 GiB", Some(1 << 30)),
            ("100B", Some(100)),
            ("1kb", Some(1000)),
            ("1", None),
            ("MiB", None),
            ("18446744073709551615GiB", None),
        ],
        |values::Size(bytes)| bytes,
    );
    parses(
        &[
            ("50/s", Some((50, 1000, 50))),
            ("10/10s", Some((10, 10_000, 10))),
            ("100/m", Some((100, 60_000, 100))),
            ("50/s burst 200", Some((50, 1000, 200))),
            ("0/s", None),
            ("50/0s", None),
            ("50/s burst 0", None),
            ("50/s burst", None),
            ("50", None),
            ("50/", None),
        ],
        |rate: Rate| (rate.requests.get(), rate.per.as_millis(), rate.burst.get()),
    );
}

#[test]
fn addresses_urls_and_dates_mean_what_they_say() {
    parses(
        &[
            ("127.0.0.1:80", Some("127.0.0.1:80".to_owned())),
            ("localhost:80", Some("127.0.0.1:80".to_owned())),
            ("[::1]:0", Some("[::1]:0".to_owned())),
            ("example.com:80", None),
            ("127.0.0.1", None),
            ("127.0.0.1:99999", None),
        ],
        |address: SocketAddr| address.to_string(),
    );
    parses(
        &[
            ("https://kie.example.com", Some("https://kie.example.com/".to_owned())),
            ("http://[::1]:80/", Some("http://[::1]:80/".to_owned())),
            ("https://a:99999", None),
            ("https://", None),
            ("ftp://a", None),
            ("https://a/b", None),
            ("https://a#b", None),
            ("", None),
        ],
        |values::BaseUrl(url)| url.to_string(),
    );
    parses(
        &[
            ("2027-01-01", Some("2027-01-01T00:00:00.000Z".to_owned())),
            ("2027-01-01T08:00:00+08:00", Some("2027-01-01T00:00:00.000Z".to_owned())),
            ("2027-02-30", None),
            ("2027-01-01T00:00:00", None),
            ("tomorrow", None),
        ],
        |time: Timestamp| time.to_rfc3339(),
    );
}

proptest! {
    /// What a stranger puts into a file, a variable or a flag ends in a configuration or in problems that
    /// print.
    #[test]
    fn no_text_makes_reading_panic(file in "\\PC*", name in "[A-Z_0-9]{0,20}", text in "\\PC*") {
        let name = format!("KIEGATE_{name}");
        let read = read(&file, &[(&name, &text)], &[("mock.latency", &text)]);
        drop(read.map_err(|error| error.to_string()));
    }

    /// The same with files that come closer to the truth.
    #[test]
    fn no_mangled_file_makes_reading_panic(at in 0..4000_usize, length in 0..40_usize, put in "[\\[\\]{}\"=.,a-z0-9é\n#-]{0,6}") {
        let file: Vec<char> = uncommented(KIEGATE).chars().collect();
        let at = at.min(file.len());
        let mangled: String = file[..at].iter().copied().chain(put.chars()).chain(file[at..].iter().copied().skip(length)).collect();
        drop(read(&mangled, &SET, &[]).map_err(|error| error.to_string()));
    }

    #[test]
    fn no_value_makes_parsing_panic(text in "[0-9a-z./:*\\[\\]{}é -]{0,24}") {
        let _ = (Duration::parse(&text).is_ok(), Rate::parse(&text).is_ok(), Pattern::parse(&text).is_ok());
        let _ = (IpNet::parse(&text).is_ok(), values::Url::parse(&text).is_ok(), HostPattern::parse(&text).is_ok());
        let _ = (Timestamp::parse(&text).is_ok(), SocketAddr::parse(&text).is_ok(), values::Size::parse(&text).is_ok());
        let _ = KeyHash::parse(&format!("sha256:{text}")).is_ok();
    }

    #[test]
    fn a_duration_reads_as_it_was_shown(millis in 0..400_000_000_u64) {
        let duration = Duration::from_millis(millis);
        prop_assert_eq!(Duration::parse(&values::show_duration(duration)), Ok(duration));
    }

    #[test]
    fn a_size_reads_as_it_was_shown(bytes: u64) {
        prop_assert_eq!(values::Size::parse(&values::show_size(bytes)).ok().map(|size| size.0), Some(bytes));
    }
}
