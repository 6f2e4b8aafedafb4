//! Every fault gives its one line; the reference file and the bench template say what they mean.
//!
//! Each bad input is a change to a good one, so that only what is meant can be wrong.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use toml::de::{DeTable, DeValue};

use super::*;
use crate::site::Keep;

const REFERENCE: &str = include_str!("../../config/tidegate.toml");
const FAULTS: &str = include_str!("faults.txt");
const PEER: &str = include_str!("../../benches/peer.toml.in");

const MACHINE: Machine = Machine { cores: 4, memory_bytes: Some(16 << 30) };

fn config(text: &str) -> Result<Config, ConfigErrors> {
    Config::on_machine(text, "t.toml", &MACHINE)
}

/// The lines that checking `text` gives.
fn faults(text: &str) -> String {
    match config(text) {
        Ok(config) => panic!("no fault in {text}: {config:?}"),
        Err(errors) => errors.to_string(),
    }
}

/// A whole configuration with `settings` before its site.
fn with(settings: &str) -> String {
    let listener = "listeners.http = \"[::1]:0\"\n";
    let listener = if settings.contains("[listeners]") { "" } else { listener };
    format!(
        "{listener}{settings}\n[[sites]]\nname = \"s\"\nhosts = \"a\"\norigins = \"http://o\"\n"
    )
}

/// A whole configuration whose site says `settings`; they begin in line 4.
fn site(settings: &str) -> String {
    format!("listeners.http = \"[::1]:0\"\n[[sites]]\nname = \"s\"\n{settings}\n")
}

/// The same with hosts and origins; `settings` begin in line 6.
fn rule(settings: &str) -> String {
    site(&format!("hosts = \"a\"\norigins = \"http://o\"\n{settings}"))
}

#[test]
fn each_fault_gives_its_line() {
    let mut around: fn(&str) -> String = with;
    let (mut blocks, mut wrong) = (0, Vec::new());
    for block in FAULTS.split("\n\n").skip(1) {
        match block.trim() {
            "== settings" => around = with,
            "== site" => around = site,
            "== rule" => around = rule,
            block => {
                let (said, piece): (Vec<_>, Vec<_>) =
                    block.lines().partition(|line| line.starts_with("! "));
                let said: Vec<_> =
                    said.iter().map(|line| format!("t.toml:{}", &line[2..])).collect();
                let piece = piece.join("\n");
                let found = faults(&around(&piece));
                if found != said.join("\n") {
                    wrong.push(format!("{piece}\n{found}"));
                }
                blocks += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "other lines were found:\n{}", wrong.join("\n\n"));
    assert!(blocks > 50, "{blocks} of them were read");
}

#[test]
fn a_syntax_fault_has_a_place_and_no_lines_of_its_own() {
    for text in ["a = ", "[x\ny = 1", "a = 1\na = 2", "a = \"\\q\"", "\u{0}"] {
        let lines = faults(text);
        for line in lines.lines() {
            let place = line.strip_prefix("t.toml:").unwrap();
            assert!(place.split(':').take(2).all(|n| n.parse::<u32>().is_ok()), "{line}");
        }
    }
    let duplicate = faults("a = 1\na = 2");
    assert_eq!(duplicate, "t.toml:2:1: duplicate key `a`; write it once");
    let text = "[sites]\nname = \"a\"\nhosts = \"a\"\n[sites]\nname = \"b\"\nhosts = \"b\"\n";
    let list = Config::from_toml(text, "t.toml").unwrap_err().to_string();
    let expected = "duplicate key `sites`; begin each with `[[sites]]`";
    assert_eq!(list, format!("t.toml:4:2: {expected}"));
}

#[test]
fn an_access_log_that_cannot_be_opened_is_a_fault_and_none_is_made() {
    let folder = std::env::temp_dir().join(format!("tidegate-log-{}", std::process::id()));
    fs::create_dir_all(&folder).unwrap();
    let log = folder.join("access.log");
    assert!(config(&with(&format!("log.access = {log:?}"))).is_ok());
    assert!(!log.exists());
    // A loop of links is closed to root too.
    std::os::unix::fs::symlink(&log, &log).unwrap();
    let said = faults(&with(&format!("log.access = {log:?}")));
    fs::remove_dir_all(&folder).unwrap();
    let fault = "t.toml:2:14: `log.access` is ";
    assert!(said.starts_with(fault) && said.contains("which cannot be written"), "{said}");
}

#[test]
fn all_faults_are_reported_in_the_order_of_the_file() {
    let text = "block_size = 1\n[listeners]\nhttp = \"x\"\n[fill]\nwindw = 1\nretries = 9\n";
    let lines = faults(text);
    let starts: Vec<&str> = lines.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        starts,
        ["t.toml:1:1", "t.toml:1:14", "t.toml:3:8", "t.toml:5:1", "t.toml:6:11"],
        "{lines}"
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_line() {
    let errors = load(Path::new("no/such.toml")).unwrap_err();
    assert_eq!(errors.to_string(), "no/such.toml: cannot read it: no such file or directory");
}

#[test]
fn a_file_that_is_no_text_is_one_line_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let [film, token] = ["film.mp4", "token"].map(|name| folder.path().join(name));
    fs::write(&film, [0x00, 0xff, 0xfe, b'\n']).unwrap();
    let expected = format!("{}: cannot read it: it is not text (UTF-8)", film.display());
    for read in [load, load_before_start] {
        assert_eq!(read(&film).unwrap_err().to_string(), expected);
    }
    fs::write(&token, [0xff; 32]).unwrap();
    let errors = config_in(folder.path(), &with("admin.token_file = \"token\"")).unwrap_err();
    let expected = "token, which cannot be read: it is not text (UTF-8)";
    assert!(errors.to_string().ends_with(expected), "{errors}");
}

#[test]
fn a_small_configuration_means_the_defaults() {
    let config = config(&with("")).unwrap();
    assert_eq!(config.threads, Threads { workers: 4, fill: 4 });
    let ram = (16u64 << 30) / 100 * 60 / (1 << 20) * (1 << 20);
    assert_eq!(config.memory, Memory { total_bytes: ram + ram.div_ceil(4), ram_bytes: ram });
    assert_eq!(config.block_size, BlockSize::MAX);
    assert_eq!(config.log.access, crate::access_log::Destination::Stdout);
    assert!(config.certificates.is_empty() && config.warnings.is_empty());
    let site = config.sites.find("a").unwrap();
    assert_eq!(site.rules.len(), 1);
    let (errors, stale_if_error) = (Duration::from_secs(1), Duration::from_secs(60));
    let lifetimes = crate::site::Lifetimes { errors, stale_if_error, ..Default::default() };
    assert_eq!(site.rules[0].lifetimes, lifetimes);
    assert_eq!(site.origins[0].authority(), "o");
}

#[test]
fn memory_is_planned_from_what_is_written() {
    let mib = |memory: Memory| (memory.total_bytes >> 20, memory.ram_bytes >> 20);
    let table = [
        ("memory.total = \"192 MiB\"", (192, 64)),
        ("memory.total = \"1 GiB\"", (1_024, 819)),
        ("memory.total = \"512 MiB\"", (512, 384)),
        ("memory = { total = \"1 GiB\", ram = \"60%\" }", (1_024, 614)),
        ("memory = { total = \"1 GiB\", ram = \"64 MiB\" }", (1_024, 64)),
        ("memory.ram = \"64 MiB\"", (192, 64)),
        ("memory.ram = 4194304000", (5_000, 4_000)),
        ("memory.ram = \"50%\"", (10_240, 8_192)),
    ];
    for (settings, expected) in table {
        let found = mib(config(&with(settings)).unwrap().memory);
        let near = found.0.abs_diff(expected.0) <= 2 && found.1.abs_diff(expected.1) <= 1;
        assert!(near, "{settings}: {found:?}");
    }
    let config = config(&with("memory.ram = \"15 GiB\"")).unwrap();
    let warning = "t.toml:2:14: `memory` may grow to 18.8 GiB, and this machine has 16.0 GiB";
    assert_eq!(config.warnings[0].to_string(), warning);
}

#[test]
fn the_index_of_the_ssd_tier_has_its_place_in_the_memory() {
    let mib = |memory: Memory| (memory.total_bytes >> 20, memory.ram_bytes >> 20);
    let volume = "[[ssd.volumes]]\npath = \"a\"\nsimulate = \"\"\nsize = ";
    let table = [
        ("", "\"256 MiB\"", 1, (193, 64)),
        ("", "\"2 TiB\"", 64, (256, 64)),
        ("ssd.index = \"8 MiB\"\n", "\"2 TiB\"", 8, (200, 64)),
        ("ssd.index = \"8 MiB\"\nmemory.total = \"512 MiB\"\n", "\"2 TiB\"", 8, (512, 376)),
    ];
    for (settings, size, index_mib, memory) in table {
        let ram = if settings.contains("total") { "" } else { "memory.ram = \"64 MiB\"\n" };
        let config = config(&with(&format!("{ram}{settings}{volume}{size}"))).unwrap();
        let found = (config.ssd.index_bytes >> 20, mib(config.memory));
        assert_eq!(found, (index_mib, memory), "{settings}{size}");
    }
    assert_eq!(config(&with("ssd.index = \"8 MiB\"")).unwrap().ssd.index_bytes, 0, "no volumes");
}

#[test]
fn a_device_that_is_gone_is_a_warning_and_not_a_fault() {
    let volume = "[[ssd.volumes]]\npath = \"/dev/disk/by-id/nvme-that-died\"\n";
    let found = config(&with(volume)).unwrap();
    assert_eq!(found.ssd.volumes[0].kind, VolumeKind::Gone);
    let warning = found.warnings[0].to_string();
    assert!(
        warning.ends_with("is gone (no such file or directory): the appliance serves without it"),
        "{warning}"
    );
    let rarely = format!("{volume}writes_per_day = \"0.01x\"\n");
    assert!(config(&with(&rarely)).is_ok(), "of a size that nobody knows any more");
    let sized = config(&with(&format!("{volume}size = \"1 TiB\"\n"))).unwrap_err().to_string();
    assert!(sized.contains("a block device is used whole: leave it out"), "{sized}");
}

#[test]
fn a_volume_is_what_is_there_or_what_is_to_be_made() {
    let folder = tempfile::tempdir().unwrap();
    let made = |name: &str, bytes: u64| {
        fs::File::create(folder.path().join(name)).unwrap().set_len(bytes).unwrap();
    };
    made("one", (300 << 20) + 5);
    made("small", 1 << 20);
    fs::create_dir(folder.path().join("below")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("one"), folder.path().join("other")).unwrap();
    let volume = |settings: &str| format!("[[ssd.volumes]]\n{settings}\n");
    let read = |volumes: &[&str]| {
        let volumes: String = volumes.iter().map(|settings| volume(settings)).collect();
        config_in(folder.path(), &with(&volumes)).map(|config| config.ssd.volumes)
    };
    let volumes = read(&[
        "path = \"one\"\nwrites_per_day = \"10.01x\"\nweight = 7",
        "path = \"new\"\nsize = \"300 MB\"\nwrites_per_day = \"1 GiB\"",
        "path = \"below/new\"\nsize = \"256 MiB\"",
    ])
    .unwrap();
    let told = |volume: &SsdVolume| (volume.kind, volume.size_bytes >> 20, volume.weight);
    assert_eq!(
        volumes.iter().map(told).collect::<Vec<_>>(),
        [
            (VolumeKind::File, 300, 7),
            (VolumeKind::NewFile, 286, 286),
            (VolumeKind::NewFile, 256, 256),
        ]
    );
    let writes: Vec<_> = volumes.iter().map(|volume| volume.writes_per_day_bytes).collect();
    assert_eq!(writes, [(300 << 20) * 1001 / 100, 1 << 30, 256 << 20]);
    let below = folder.path().join("below/new").display().to_string();
    let new = folder.path().join("new").display().to_string();
    let names: Vec<_> = volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["one", &new, &below], "a name that two files have is no name");
    assert!(!folder.path().join("new").exists(), "checking makes nothing");

    // What is no volume is left out later, and its size no fault of the configuration.
    for size in ["256 MiB", "1 GiB"] {
        let other = volume(&format!("path = \"one\"\nsize = {size:?}"));
        let other =
            config_in(folder.path(), &with(&(other + &volume("path = \"small\"")))).unwrap();
        assert_eq!((other.ssd.volumes[0].size_bytes, other.warnings.len()), (300 << 20, 0));
    }

    let error = |volumes: &[&str]| read(volumes).unwrap_err().to_string();
    let table = [
        (
            &["path = \"one\"", "path = \"other\""][..],
            "5:8: `ssd.volumes.path` is \"other\", the vol",
        ),
        (&["path = \"below\""], "is \"below\"; a file or a block device"),
        (&["path = \"new\"\nsize = \"64 TiB\""], " are free where it is to be"),
    ];
    for (volumes, expected) in table {
        let found = error(volumes);
        assert!(found.contains(expected) && found.lines().count() == 1, "{volumes:?}: {found}");
    }
}

#[test]
fn the_state_of_volumes_lies_in_the_folder_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let state = |text: &str| config_in(folder.path(), &with(text)).unwrap().ssd.state;
    assert_eq!(state("ssd.state = \"ill.json\""), folder.path().join("ill.json"));
    assert_eq!(state("ssd.state = \".\""), folder.path().join("./volumes.json"));
    assert_eq!(state("").file_name().unwrap(), "volumes.json");
}

#[test]
fn a_rule_takes_over_what_it_does_not_say() {
    let config = config(&rule(
        "query = \"none\"\nlifetime = { given = \"1h\", errors = \"3s\" }\n\
         request.remove = [\"Cookie\"]\n\
         rules = [{ path = \"*.m3u8\", keep = \"ram\", lifetime.given = \"2s\", \
         request.add = { A = \"b\" } }]",
    ))
    .unwrap();
    let site = config.sites.find("a").unwrap();
    let (playlist, other) = (site.rule_for("/a.m3u8"), site.rule_for("/a.ts"));
    assert_eq!(playlist.lifetimes.given, Some(Duration::from_secs(2)));
    assert_eq!(playlist.lifetimes.errors, Duration::from_secs(3));
    assert_eq!(other.lifetimes.given, Some(Duration::from_secs(3_600)));
    assert_eq!((playlist.keep, other.keep), (Keep::Ram, Keep::Ssd));
    assert_eq!(playlist.query, crate::site::QueryPolicy::None);
    assert_eq!(playlist.request.remove, ["cookie"]);
    assert_eq!(playlist.request.add.len(), 1);
    assert!(other.request.add.is_empty());
}

#[test]
fn a_rule_for_a_bare_word_is_warned_of_and_what_is_advised_matches_what_is_said() {
    let ruled = |path: &str| config(&rule(&format!("rules = [{{ path = \"{path}\" }}]"))).unwrap();
    for path in ["m4s", ".m4s"] {
        let told = ruled(path).warnings;
        assert_eq!(told.len(), 1, "{told:?}");
        let expected = format!(
            "t.toml:6:19: `sites.rules.path` is \"{path}\", which matches paths that end in \
             \"/{path}\" and no others; write \"*.m4s\" for names that end in .m4s, \"{path}/**\" \
             for what lies in a folder of that name, or \"/**/{path}\" if it is meant"
        );
        assert_eq!(told[0].to_string(), expected);
    }
    for (path, matching) in [
        ("m4s", ["/m4s", "/a/m4s"]),
        ("*.m4s", ["/1.m4s", "/a/1.m4s"]),
        ("m4s/**", ["/m4s/1", "/a/m4s/b/1"]),
        ("/**/m4s", ["/m4s", "/a/m4s"]),
    ] {
        let config = ruled(path);
        let rule = &config.sites.find("a").unwrap().rules[0];
        assert!(matching.iter().all(|one| rule.pattern.matches(one)), "{path}");
        assert!(!rule.pattern.matches("/xm4s"), "{path}");
        assert_eq!(config.warnings.is_empty(), path != "m4s", "{path}");
    }
    for path in ["index.m3u8", "/m4s", "live/*", "**"] {
        assert!(ruled(path).warnings.is_empty(), "{path}");
    }
}

#[test]
fn a_rule_after_everything_is_warned_of() {
    let config = config(&rule("rules = [{ path = \"**\" }, { path = \"*.ts\" }]")).unwrap();
    let warning = "t.toml:6:36: `sites.rules.path` is never reached: \"**\" stands at 6:19";
    assert_eq!(config.warnings[0].to_string(), warning);
    assert_eq!(config.sites.find("a").unwrap().rules.len(), 2);
}

/// A folder with `cert.pem` and `key.pem` for `names`, and `ca.pem`.
fn folder_for(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).unwrap();
    fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
    fs::write(folder.path().join("ca.pem"), made.cert.pem()).unwrap();
    fs::write(folder.path().join("purge-token"), "0123456789abcdef\n").unwrap();
    fs::write(folder.path().join("steering-secret"), "0123456789abcdef\n").unwrap();
    fs::write(folder.path().join("etcd-password"), "secret\n").unwrap();
    fs::write(folder.path().join("log-headers"), "Authorization: Bearer x\n").unwrap();
    fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    fs::write(folder.path().join("acme-key"), "c2VjcmV0LXNlY3JldA==\n").unwrap();
    fs::write(folder.path().join("dns-hook"), "#!/bin/sh\n").unwrap();
    fs::write(folder.path().join("keys.json"), "{\"publisher\": {\"keys\": []}}").unwrap();
    let places = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds/places");
    for (name, seed) in [("GeoLite2-City.mmdb", "city"), ("GeoLite2-ASN.mmdb", "asn")] {
        fs::copy(places.join(seed), folder.path().join(name)).unwrap();
    }
    for name in ["ours.networks", "blocked.networks"] {
        fs::write(folder.path().join(name), "192.0.2.0/24\n").unwrap();
    }
    let program = fs::Permissions::from_mode(0o700);
    fs::set_permissions(folder.path().join("dns-hook"), program).unwrap();
    folder
}

fn config_in(folder: &Path, text: &str) -> Result<Config, ConfigErrors> {
    let name = folder.join("t.toml");
    Config::on_machine(text, name.to_str().unwrap(), &MACHINE)
}

#[test]
fn the_nearest_name_picks_the_certificate() {
    let wide = folder_for(&["*.example.com", "b.example.com"]);
    let near = folder_for(&["a.example.com", "b.example.com"]);
    let pair = |folder: &Path| {
        let path = folder.display();
        format!("[[certificates]]\ncert = \"{path}/cert.pem\"\nkey = \"{path}/key.pem\"\n")
    };
    let (one, two) = (pair(wide.path()), pair(near.path()));
    let config = config(&with(&format!("listeners.https = \"[::1]:0\"\n{one}{two}"))).unwrap();
    for (name, expected) in [
        (Some("a.example.com"), &near),
        (Some("b.example.com"), &wide),
        (Some("x.example.com"), &wide),
        (Some("x.a.example.com"), &wide),
        (Some("lost.example.org"), &wide),
        (None, &wide),
    ] {
        let found = config.certificates.find(name).unwrap();
        assert_eq!(found.path, expected.path().join("cert.pem"), "{name:?}");
    }
}

#[test]
fn a_key_pair_is_read_matched_and_named() {
    let folder = folder_for(&["a", "*.b.example.com"]);
    let other = folder_for(&["a"]);
    let pair = |cert: &str, key: &str| {
        with(&format!(
            "listeners.https = \"[::1]:0\"\n[[certificates]]\ncert = \"{cert}\"\nkey = \"{key}\""
        ))
    };
    let config = config_in(folder.path(), &pair("cert.pem", "key.pem")).unwrap();
    let names = &config.certificates.find(Some("a")).unwrap().names;
    assert_eq!(names.as_slice(), ["a", "*.b.example.com"]);
    assert!(config.warnings.is_empty());

    fs::write(folder.path().join("bad.pem"), "-----BEGIN CERTIFICATE-----\n*\n").unwrap();
    let at = folder.path().display().to_string();
    let foreign = other.path().join("key.pem").display().to_string();
    let table = [
        (
            "cert.pem",
            &*foreign,
            "5:7: `certificates.key` is not the key of the certificate in cert.pem",
        ),
        ("none.pem", "key.pem", "4:8: `certificates.cert` names none.pem, which cannot be read"),
        (
            "key.pem",
            "key.pem",
            "4:8: `certificates.cert` names key.pem, which holds no certificate",
        ),
        (
            "cert.pem",
            "cert.pem",
            "5:7: `certificates.key` names cert.pem, which holds no private key",
        ),
    ];
    for (cert, key, line) in table {
        let errors = config_in(folder.path(), &pair(cert, key)).unwrap_err().to_string();
        let errors = errors.replace(&format!("{at}/"), "");
        assert!(errors.starts_with(&format!("t.toml:{line}")), "{cert} {key}: {errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
    let errors = config_in(folder.path(), &pair("bad.pem", "key.pem")).unwrap_err().to_string();
    assert!(errors.contains("bad.pem, which is no good PEM"), "{errors}");
}

#[test]
fn a_host_without_a_certificate_is_warned_of() {
    let folder = folder_for(&["b"]);
    let text = with(
        "listeners.https = \"[::1]:0\"\n[[certificates]]\ncert = \"cert.pem\"\nkey = \"key.pem\"",
    );
    let config = config_in(folder.path(), &text).unwrap();
    let warning = config.warnings[0].to_string();
    assert!(
        warning.ends_with("t.toml:2:19: no certificate is for \"a\" of site \"s\""),
        "{warning}"
    );
}

#[test]
#[cfg(feature = "acme")]
fn what_an_authority_would_not_issue_and_a_hook_that_nobody_runs_are_warned_of() {
    let folder = folder_for(&["a"]);
    let text = with(
        "acme = { terms = \"agreed\", state = \"acme\", hook = \"dns-hook\" }\n\
         [[certificates]]\nacme = \"localhost\"",
    );
    let config = config_in(folder.path(), &text).unwrap();
    let warnings: Vec<_> = config.warnings.iter().map(ToString::to_string).collect();
    let [hook, name] = &warnings[..] else { panic!("{warnings:?}") };
    assert!(
        hook.ends_with(
            "t.toml:2:51: `acme.hook` is not used: `acme.challenge` is \"http-01\", not \"dns-01\""
        ),
        "{hook}"
    );
    assert!(
        name.ends_with(
            "t.toml:4:8: `certificates.acme` is \"localhost\", which has no dot; public \
             authorities issue no certificate for it"
        ),
        "{name}"
    );
}

/// The reference with its defaults, and if `examples` its examples too, no longer commented out.
fn uncommented(examples: bool) -> String {
    let line = |line: &'static str| match line.strip_prefix("#:") {
        Some(example) if examples => example.trim_start(),
        Some(_) => "",
        None => match line.strip_prefix('#') {
            Some(default) if !default.starts_with(' ') => default,
            _ => line,
        },
    };
    // What a build has not, it refuses.
    let section = REFERENCE.lines().scan("", |section, line| {
        *section = if line.starts_with('[') { line } else { *section };
        Some((*section, line))
    });
    let is_had = |section: &str| cfg!(feature = "etcd") || section != "[control.etcd]";
    let lines = section.filter(|(section, _)| !examples || is_had(section)).map(|(_, it)| line(it));
    // The example shows a second way to write what the default before it says.
    let lines = lines.filter(|line| !(examples && line.starts_with("lifetime = { errors = ")));
    // Only a file can be moved.
    let lines = lines.map(|line| match line {
        "access = \"stdout\"" if examples => "access = \"access.log\"",
        // Only one challenge uses the hook.
        "challenge = \"http-01\"" if examples => "challenge = \"dns-01\"",
        line => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// All that was meant, without places in the file.
fn meaning(config: &Config) -> String {
    let addresses: Vec<_> = config.listeners.iter().map(|l| (l.kind, l.address)).collect();
    let Config { threads, memory, ssd, block_size, fill, limits, log, sites, .. } = config;
    let (routes, steering) = (&config.routes, &config.steering);
    format!("{addresses:?} {threads:?} {memory:?} {block_size:?} {fill:?} {limits:?} {log:?} ")
        + &format!("{ssd:?} {:?} {routes:?} {steering:?} ", config.proxies)
        + &sites.iter().map(|site| format!("{site:?}")).collect::<String>()
}

#[test]
fn the_reference_is_a_working_example_and_its_defaults_are_the_defaults() {
    let as_it_is = config(REFERENCE).unwrap();
    let with_defaults = config(&uncommented(false)).unwrap();
    assert_eq!(meaning(&as_it_is), meaning(&with_defaults));
    assert!(as_it_is.warnings.is_empty(), "{:?}", as_it_is.warnings);
}

#[test]
fn the_reference_with_all_its_examples_is_right_and_complete() {
    let folder = folder_for(&["localhost", "127.0.0.1", "::1", "*.archive.example.com"]);
    let text = uncommented(true);
    let config = config_in(folder.path(), &text).unwrap();
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.sites.find("x.archive.example.com").unwrap().name, "archive");

    let name = folder.path().join("t.toml");
    let source = Source::new(name.to_str().unwrap(), &text, Credentials::Here);
    let document = source.parse().unwrap();
    Section::document(&source, &document, |section| read(section, &MACHINE));
    let mut written = BTreeSet::new();
    names(&document, "", &mut written);
    let missing: Vec<_> = source.asked().difference(&written).cloned().collect();
    let both_ways = [
        "sites.rules.",
        "sites.query",
        "sites.keep",
        "sites.viewers",
        "sites.off_route",
        "sites.access",
        "sites.content",
        "sites.request_cache_control",
        "sites.methods",
        "sites.request_body",
        "sites.purge_from",
        "sites.request",
        "sites.response",
        "sites.cors",
        "sites.cmsd",
        "sites.pace",
        "sites.prefetch",
        "sites.steering",
    ];
    let is_had = |name: &&String| cfg!(feature = "etcd") || !name.starts_with("control.etcd");
    let missing = missing.iter().filter(is_had);
    let missing = missing.filter(|name| !both_ways.iter().any(|way| name.starts_with(way)));
    assert_eq!(missing.collect::<Vec<_>>(), Vec::<&String>::new());
}

/// The full name of every setting in a table.
fn names(table: &DeTable<'_>, prefix: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        let tables = match value.get_ref() {
            DeValue::Array(items) => {
                items.iter().filter_map(|item| item.get_ref().as_table()).collect()
            }
            value => Vec::from_iter(value.as_table()),
        };
        for table in tables {
            names(table, &format!("{name}."), found);
        }
        found.insert(name);
    }
}

#[test]
fn what_the_readme_shows_is_right() {
    let shown = include_str!("../../README.md").split("```toml\n").skip(1);
    let shown: Vec<_> = shown.filter_map(|rest| rest.split("```").next()).collect();
    let [first, over_https, volume] = shown[..] else { panic!("{shown:#?}") };
    let first = config(first).unwrap();
    assert_eq!((first.listeners.len(), first.warnings.len()), (2, 0), "{:?}", first.warnings);
    let over_https = config(over_https).unwrap();
    assert_eq!(over_https.sites.find("video.example.com").unwrap().rules.len(), 3);
    let volumes = config(&with(volume)).unwrap().ssd.volumes;
    assert_eq!((volumes.len(), volumes[0].kind), (1, VolumeKind::Gone));
}

#[test]
fn the_bench_template_is_right() {
    let folder = folder_for(&["localhost"]);
    let path = |file: &str| folder.path().join(file).display().to_string();
    let values = [
        ("http_port", "20000".to_owned()),
        ("https_port", "20001".to_owned()),
        ("admin_port", "20002".to_owned()),
        ("origin_url", "http://127.0.0.1:8080".to_owned()),
        ("cert", path("cert.pem")),
        ("key", path("key.pem")),
        ("ram_bytes", (4_000u64 << 20).to_string()),
        ("threads", "1".to_owned()),
        ("host", "localhost".to_owned()),
    ];
    let text = values
        .iter()
        .fold(PEER.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), value));
    let config = config_in(folder.path(), &text).unwrap();
    assert_eq!((config.threads.workers, config.memory.ram_bytes), (1, 4_000 << 20));
    let origin = &config.sites.find("localhost").unwrap().origins[0];
    assert_eq!((origin.authority().as_str(), origin.port), ("127.0.0.1:8080", 8080));
}

#[test]
fn whom_nobody_can_show_a_token_is_a_warning() {
    let site = "listeners.http = \"127.0.0.1:80\"\n[[sites]]\nname = \"a\"\nhosts = [\"a.test\"]\n\
                origins = [\"http://o.test\"]\npurge_from = [\"127.0.0.1\"]\n";
    let told = config(site).unwrap().warnings;
    let expected = "t.toml:1:1: `purge_from` lets nobody purge, as there is no token to show; ";
    assert_eq!(told.len(), 1);
    assert!(told[0].to_string().starts_with(expected), "{}", told[0]);
}

#[test]
fn an_admin_listener_that_others_reach_is_a_warning_unless_viewers_have_a_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tokens");
    let told = |admin: &str, tokens: &str| {
        fs::write(&file, tokens).unwrap();
        let (name, site) = (file.display(), "[[sites]]\nname = \"a\"\nhosts = [\"a.test\"]\n");
        let text = format!(
            "listeners.http = \"127.0.0.1:80\"\nlisteners.admin = {admin}\n\
             admin.token_file = \"{name}\"\n{site}origins = [\"http://o.test\"]\n"
        );
        config(&text).unwrap().warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let (operator, viewer) = ("operator a 0123456789abcdef", "viewer b fedcba9876543210");
    assert_eq!(told("[\"127.0.0.1:1\", \"[::1]:1\"]", operator), Vec::<String>::new());
    assert_eq!(told("\"0.0.0.0:1\"", &format!("{operator}\n{viewer}")), Vec::<String>::new());
    let open = told("[\"127.0.0.1:1\", \"192.0.2.1:1\"]", operator);
    let expected = "t.toml:2:35: `listeners.admin` 192.0.2.1:1: whoever reaches it may look at ";
    assert!(open.len() == 1 && open[0].starts_with(expected), "{open:?}");
}

#[test]
fn a_name_that_players_come_back_to_without_a_secret_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("secret"), "0123456789abcdef\n").unwrap();
    let told = |more: &str| {
        let text = format!(
            "listeners = {{ http = \"[::1]:80\", steering = \"[::1]:81\" }}\n\
             steering = {{ {more} }}\n[[sites]]\nname = \"s\"\nhosts = \"a\"\n\
             origins = \"http://o\"\n"
        );
        let warnings = config_in(folder.path(), &text).unwrap().warnings;
        warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let url = "url = \"https://steer.test\"";
    let warned = told(url);
    assert!(warned.len() == 1 && warned[0].contains("`secret_file`, the same"), "{warned:?}");
    assert!(told(&format!("{url}, secret_file = \"secret\"")).is_empty());
    assert!(told("spread = 2").is_empty());
}

#[test]
fn a_method_in_small_letters_is_a_warning() {
    let told = config(&with("")).unwrap().warnings;
    assert!(told.is_empty(), "{told:?}");
    let sites =
        "name = \"s\"\nhosts = \"a\"\norigins = \"http://o\"\nmethods = [\"PUT\", \"post\"]";
    let told =
        config(&format!("listeners.http = \"[::1]:0\"\n[[sites]]\n{sites}\n")).unwrap().warnings;
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].to_string(), "t.toml:6:19: \"post\" is another method than \"POST\"");
}
