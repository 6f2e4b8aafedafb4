//! Each command on a file of its own: what it says, what it leaves, its exit code.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;

use super::super::run_with;
use super::*;
use crate::object::{BlockKey, PieceMap, VersionNumbers};
use crate::store::device::create;
use crate::store::survey::{Contents, Survey, glance};
use crate::store::volume::{BlockWrite, HeadWrite, VolumeSettings};
use crate::store::{FilledFor, ObjectHash, SiteHash, Volume};

const MIB: u64 = 1 << 20;

fn code(words: &[&str]) -> ExitCode {
    let words = ["tidegate", "volume"].iter().chain(words);
    run_with(words.map(|word| (*word).into()))
}

fn args(path: &Path) -> inspect::Args {
    let state = StateFile { state: Some(path.with_extension("state")), ..StateFile::default() };
    inspect::Args { path: path.to_owned(), json: true, state }
}

fn inspected(path: &Path) -> serde_json::Value {
    serde_json::from_str(&inspect::look(&args(path)).unwrap().0).unwrap()
}

#[test]
fn a_volume_is_made_looked_at_checked_and_unmade() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    let name = path.to_str().unwrap();
    let done = ExitCode::SUCCESS;
    assert_eq!(code(&["create", name, "--size", "300 MiB"]), done);
    let made = inspected(&path);
    assert_eq!(made["size"], 300 * MIB);
    assert_eq!(
        made["regions"],
        serde_json::json!({
            "free": 36, "open": 0, "quarantined": 0, "sealed": 0,
        })
    );
    assert_eq!((&made["faults_total"], &made["illness"]), (&0.into(), &serde_json::Value::Null));
    assert_eq!(code(&["create", name, "--size", "300 MiB"]), ExitCode::from(1), "it is there");
    assert_eq!(inspected(&path)["id"], made["id"]);
    assert_eq!(code(&["verify", name]), done);

    assert_eq!(code(&["format", name]), ExitCode::from(64), "nobody can be asked");
    assert_eq!(inspected(&path)["id"], made["id"]);
    assert_eq!(code(&["format", name, "--yes", "--json"]), done);
    assert_ne!(inspected(&path)["id"], made["id"]);

    let state = path.with_extension("state");
    assert_eq!(code(&["wipe", name, "--yes", "--state", state.to_str().unwrap()]), done);
    let error = inspect::look(&args(&path)).unwrap_err().to_string();
    assert!(error.contains("a.volume is no volume: nothing was written here; "), "{error}");
    assert_eq!(code(&["verify", name]), ExitCode::from(1));
}

#[test]
fn what_is_no_volume_is_not_wiped() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("another's");
    let bytes = vec![b'x'; 2 * MIB as usize];
    fs::write(&path, &bytes).unwrap();
    assert_eq!(code(&["wipe", path.to_str().unwrap(), "--yes"]), ExitCode::from(1));
    assert_eq!(fs::read(&path).unwrap(), bytes);
}

#[test]
fn what_is_wrong_is_told_and_fails() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    let name = path.to_str().unwrap();
    assert_eq!(code(&["create", name, "--size", "256 MiB"]), ExitCode::SUCCESS);
    let told = || {
        let disk = open(&path, Access::ReadOnly).unwrap();
        let survey = runtime().unwrap().block_on(Survey::of(&disk)).unwrap();
        let told =
            told::verified(&path, &survey, &Contents::default(), "well", Duration::from_secs(1));
        told.lines().skip(5).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(told(), ["  all is as it was written"]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"?", 4096 + 100).unwrap();
    let wrong = told();
    assert!(wrong.len() == 1 && wrong[0].starts_with("  wrong: "), "{wrong:?}");
    assert_eq!(code(&["verify", name]), ExitCode::from(1));
    let found = inspected(&path);
    assert_eq!(found["faults"][0]["part"], "superblock");
    assert_eq!(found["faults"][0]["at"], 4096);
}

#[test]
fn what_a_crash_alone_leaves_is_no_reason_to_replace_the_drive() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    assert_eq!(code(&["create", path.to_str().unwrap(), "--size", "256 MiB"]), ExitCode::SUCCESS);
    let table = glance(&path).unwrap().geometry().table();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let drive = "if there is more of it the next time, replace the drive\n";
    let torn = "what the regions say; a crash leaves that, too\n";
    let half = (table.end - table.start) / 2;
    for (at, advice) in [(table.start, torn), (table.start + half, drive), (4096, drive)] {
        file.write_all_at(b"?", at + 100).unwrap();
        let words = inspect::look(&inspect::Args { json: false, ..args(&path) }).unwrap().0;
        assert!(words.ends_with(advice), "{words}");
    }
}

#[test]
fn regions_that_have_failed_are_told_with_what_brings_them_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    create(&path, 256 * MIB).unwrap();
    assert_eq!(code(&["format", path.to_str().unwrap(), "--yes"]), ExitCode::SUCCESS);
    let disk = open(&path, Access::ReadOnly).unwrap();
    let mut survey = runtime().unwrap().block_on(Survey::of(&disk)).unwrap();
    let told = |survey: &Survey| {
        told::verified(&path, survey, &Contents::default(), "well", Duration::from_secs(1))
    };
    assert!(!told(&survey).contains("regions"), "{}", told(&survey));
    let all = survey.regions.len();
    for (region, words) in
        [(3, "1 of {} regions has failed and is"), (5, "2 of {} regions have failed and are")]
    {
        survey.regions[region].state = crate::store::format::RegionState::Quarantined;
        let words = words.replace("{}", &all.to_string());
        let line = format!("\n  regions      {words} out of use until it is formatted anew");
        let told = told(&survey);
        assert!(told.contains(&line) && told.contains("`tidegate volume format`"), "{told}");
    }
}

/// A volume on which three blocks and a head were written.
fn written(path: &Path) {
    assert_eq!(code(&["create", path.to_str().unwrap(), "--size", "256 MiB"]), ExitCode::SUCCESS);
    let disk = open(path, Access::ReadWrite).unwrap();
    let runtime = runtime().unwrap();
    runtime.block_on(async {
        let volume = Volume::open(disk, VolumeSettings::default()).await.unwrap();
        let versions = VersionNumbers::of_epoch(1);
        for index in 0..3 {
            let block = BlockWrite {
                object: ObjectHash(index.into()),
                site: SiteHash(1),
                block: BlockKey { version: versions.assign(), index },
                birth: 0,
                pieces: PieceMap::run(0, 3),
                parts: vec![Bytes::from(vec![index as u8 + 1; 3 * (64 << 10)])],
                filled_for: FilledFor::Demand,
                guard: Box::new(()),
            };
            volume.append_block(block).unwrap();
        }
        let head = HeadWrite {
            object: ObjectHash(0),
            site: SiteHash(1),
            birth: 0,
            payload: Bytes::from_static(b"a head"),
            body: None,
            guard: Box::new(()),
        };
        volume.append_head(head).unwrap();
        volume.close().await;
    });
}

#[test]
fn what_the_engine_wrote_is_found_and_a_byte_that_rots_is_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    written(&path);
    let found = inspected(&path);
    assert_eq!((&found["blocks"], &found["heads"]), (&3.into(), &1.into()), "{found}");
    assert_eq!(found["faults_total"], 0, "{found}");
    assert!(found["checkpoints"].as_array().unwrap().iter().any(|slot| slot["number"].is_u64()));
    let name = path.to_str().unwrap();
    assert_eq!(code(&["verify", name]), ExitCode::SUCCESS);

    let bytes = fs::read(&path).unwrap();
    let at = bytes.windows(4096).position(|granule| granule.iter().all(|byte| *byte == 2));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(b"?", at.unwrap() as u64 + (64 << 10)).unwrap();
    assert_eq!(code(&["verify", name]), ExitCode::from(1));
    let found = inspected(&path);
    assert_eq!(found["faults_total"], 1, "{found}");
    assert_eq!(found["faults"][0]["why"], "wrong checksum of piece 1");
}

#[test]
fn what_a_start_heals_is_wrong_before_and_what_it_finds_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    let name = path.to_str().unwrap();
    let geometry = *{
        written(&path);
        glance(&path).unwrap()
    }
    .geometry();
    let table = geometry.table();
    let zero = |from: u64, to: u64| {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; (to - from) as usize], from).unwrap();
    };
    let start = || {
        let disk = open(&path, Access::ReadWrite).unwrap();
        runtime().unwrap().block_on(async {
            let volume = Volume::open(disk, VolumeSettings::default()).await.unwrap();
            let figures = volume.figures();
            volume.close().await;
            (figures.blocks, figures.heads)
        })
    };
    let checkpoints = geometry.checkpoint(0).start..geometry.checkpoint(1).end;
    let half = (table.end - table.start) / 2;
    for (from, to, part) in [
        (table.start, table.start + 4096, "copy of a page of the region table"),
        (table.start + half, table.start + half + 4096, "copy of a page of the region table"),
        (table.start, table.end, "copy of a page of the region table"),
        (checkpoints.start, checkpoints.start + 4096, "checkpoint"),
        (table.start, checkpoints.end, "copy of a page of the region table"),
    ] {
        zero(from, to);
        let found = inspected(&path);
        assert_eq!((&found["blocks"], &found["heads"]), (&3.into(), &1.into()), "{found}");
        assert_eq!(
            (&found["faults"][0]["part"], &found["faults"][0]["at"]),
            (&part.into(), &from.into())
        );
        assert_eq!(code(&["verify", name]), ExitCode::from(1), "{from}..{to}");
        let (words, _) = inspect::look(&inspect::Args { json: false, ..args(&path) }).unwrap();
        assert!(
            words.contains("  from its next start on the appliance writes the table"),
            "{words}"
        );
        // Of a page that is lost a start writes one copy.
        for _ in 0..=u32::from(to > table.start + half && from == table.start) {
            assert_eq!(start(), (3, 1), "{from}..{to}");
        }
        assert_eq!(code(&["verify", name]), ExitCode::SUCCESS, "{from}..{to}: it is healed");
    }
}

#[test]
fn a_volume_in_use_is_left_alone_with_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    create(&path, 256 * MIB).unwrap();
    let _open = open(&path, Access::ReadWrite).unwrap();
    let error = inspect::look(&args(&path)).unwrap_err().to_string();
    assert!(error.contains("is in use by another process; if that is the appliance"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn a_volume_that_has_failed_is_shown_and_forgiven() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    assert_eq!(code(&["create", path.to_str().unwrap(), "--size", "256 MiB"]), ExitCode::SUCCESS);
    let id = u128::from_str_radix(inspected(&path)["id"].as_str().unwrap(), 16).unwrap();
    let state = path.with_extension("state");
    let remembered = crate::store::remembered::Remembered::at(&state);
    let illness = crate::store::remembered::Illness {
        state: crate::store::remembered::IllState::Offline,
        reason: "20 reads failed".to_owned(),
        since: std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_795_262_128),
    };
    remembered.remember(id, illness).unwrap();
    let (words, _) = inspect::look(&inspect::Args { json: false, ..args(&path) }).unwrap();
    let line = "health       offline since Sat, 21 Nov 2026 11:55:28 GMT: 20 reads failed\n";
    assert!(words.contains(line), "{words}");
    let state = state.to_str().unwrap();
    let name = path.to_str().unwrap();
    assert_eq!(code(&["verify", name, "--state", state]), ExitCode::SUCCESS, "of its bytes");
    assert_eq!(code(&["verify", name, "--config", "no/such.toml"]), ExitCode::from(64));
    assert_eq!(code(&["forgive", name, "--state", state]), ExitCode::SUCCESS);
    assert!(inspected(&path)["illness"].is_null());
}

#[test]
fn a_broken_configuration_that_nobody_named_keeps_nobody_from_looking() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    let name = path.to_str().unwrap();
    assert_eq!(code(&["create", name, "--size", "256 MiB"]), ExitCode::SUCCESS);
    let usual = folder.path().join("tidegate.toml");
    fs::write(&usual, "[ssd").unwrap();
    let state = || StateFile { usual: usual.clone(), ..StateFile::default() };
    let looks = |json| inspect::Args { path: path.clone(), json, state: state() };
    let words = inspect::look(&looks(false)).unwrap().0;
    let unknown = "  health       it is not known where it would be remembered: ";
    assert!(words.contains(unknown) && words.contains("tidegate.toml:1:"), "{words}");
    let told = serde_json::from_str::<serde_json::Value>(&inspect::look(&looks(true)).unwrap().0);
    let told = told.unwrap();
    assert!(told["state_file"].is_null() && told["state_file_exists"].is_null(), "{told}");
    assert!(told["state_file_error"].as_str().unwrap().contains("tidegate.toml:1:"), "{told}");
    let verify = |config| {
        let state = StateFile { config, ..state() };
        verify::run(&verify::Args { path: path.clone(), json: true, state })
    };
    assert!(verify(None).is_ok());
    assert!(matches!(verify(Some(usual.clone())), Err(Failure::Misused(_))));
    assert!(matches!(state().path(), Err(Failure::Misused(_))), "who writes must know where");
}

#[test]
fn whoever_only_looks_leaves_a_damaged_state_file_where_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    let name = path.to_str().unwrap();
    assert_eq!(code(&["create", name, "--size", "256 MiB"]), ExitCode::SUCCESS);
    let state = path.with_extension("state");
    fs::write(&state, "{").unwrap();
    for _ in 0..2 {
        let (words, _) = inspect::look(&inspect::Args { json: false, ..args(&path) }).unwrap();
        assert!(words.contains("a.state is damaged (EOF"), "{words}");
        assert_eq!(code(&["forgive", name, "--state", state.to_str().unwrap()]), ExitCode::SUCCESS);
        assert_eq!(fs::read(&state).unwrap(), b"{");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing was put aside");
}

#[test]
fn what_cannot_be_a_volume_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.volume");
    let name = path.to_str().unwrap();
    let misused = ExitCode::from(64);
    for words in [
        &["create", name][..],
        &["create", name, "--size", "255 MiB"],
        &["create", name, "--size", "many"],
        &["create", name, "--size", "1 GiB", "--block-size", "3 MiB"],
        &["inspect"],
    ] {
        assert_eq!(code(words), misused, "{words:?}");
        assert!(!path.exists());
    }
    assert_eq!(code(&["inspect", name]), ExitCode::from(1));
    fs::write(&path, vec![1; 8192]).unwrap();
    assert_eq!(code(&["format", name, "--yes"]), misused, "too small");
    assert_eq!(fs::read(&path).unwrap(), vec![1; 8192]);
}
