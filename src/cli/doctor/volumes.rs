//! The volumes, as a start would find them: what it would refuse, leave out, or have failed before.

use super::Subject;
use super::finding::Finding;
use crate::appliance::{LeftOut, look_at_failed, look_at_volumes};
use crate::config::VolumeKind;
use crate::config::units::bytes_about;

const MAKE_WRITABLE: &str =
    "let the user that serves write that folder, or name another file as `ssd.state`";
const IF_WELL: &str = "look at `disks` and at `dmesg`: replace the drive if it is ill, and type \
                       the first of these commands if it is well";
const IF_UNKNOWN: &str = "look at `disks` and at `dmesg`: a start uses every volume again, and \
                          whether the drives are well only you can tell before";

/// Each volume.
pub(super) fn look(subject: &Subject) -> Vec<Finding> {
    let ssd = &subject.config.ssd;
    if ssd.volumes.is_empty() {
        return vec![Finding::ok("there are none: everything is kept in ram")];
    }
    let left_out = match look_at_volumes(&subject.config) {
        Ok(left_out) => left_out,
        Err(refused) => {
            return vec![Finding::fail(refused.text, "a start would be refused: set it right")];
        }
    };
    let mut findings = Vec::new();
    for (index, volume) in ssd.volumes.iter().enumerate() {
        let why = left_out.iter().find(|left_out| left_out.index == index);
        let found = format!("{}, {}", volume.kind.as_str(), bytes_about(volume.size_bytes));
        let finding = match (why, volume.kind) {
            (Some(LeftOut { why, .. }), _) => {
                let to_do = "until then it is left out, and what it holds is fetched again";
                Finding::warn(why, to_do)
            }
            (None, VolumeKind::Gone) => Finding::warn(
                "gone: it would be left out",
                "look at its cable and at `dmesg`, or take it out of the configuration",
            ),
            (None, VolumeKind::Unwritable) => Finding::warn(
                "this user may not write it: it would be left out",
                "ask again as the user that serves, or let that user write it",
            ),
            (None, VolumeKind::NewFile) => Finding::note(found, "nothing: a start makes it"),
            (None, _) => Finding::ok(found),
        };
        findings.push(finding.of(&volume.name));
    }
    findings.extend(ssd.state_fault().map(|text| Finding::warn(text, MAKE_WRITABLE)));
    match look_at_failed(&subject.config) {
        Ok(failed) => {
            findings.extend(failed.into_iter().map(|text| Finding::warn(text, IF_WELL)));
        }
        Err(unknown) => findings.push(Finding::warn(unknown, IF_UNKNOWN)),
    }
    findings
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::ExitCode;

    use serde_json::json;

    use super::super::finding::State;
    use super::super::root::Root;
    use super::super::tests::subject;
    use super::*;
    use crate::store::survey::glance;

    #[test]
    fn volumes_are_told_as_a_start_would_find_them() {
        let folder = tempfile::tempdir().unwrap();
        let (new, no_volume) = (folder.path().join("new"), folder.path().join("no-volume"));
        fs::File::create(&no_volume).unwrap().set_len(256 << 20).unwrap();
        let settings = format!(
            "ssd.state = {:?}\n[[ssd.volumes]]\npath = {new:?}\nsize = '1 GiB'\n\
             writes_per_day = '1x'\n[[ssd.volumes]]\npath = {no_volume:?}\nsize = '256 MiB'\n\
             writes_per_day = '1x'\n",
            folder.path().join("state.json"),
        );
        let findings = look(&subject(&settings, Root::at("/")));
        let told: Vec<_> = findings.iter().map(|one| (one.of.as_str(), one.state)).collect();
        assert_eq!(told, [("new", State::Note), ("no-volume", State::Warn)], "{findings:#?}");

        let state = folder.path().join("state.json");
        fs::write(&state, "no JSON").unwrap();
        let last = look(&subject(&settings, Root::at("/"))).pop().unwrap();
        assert!(last.found.contains("is damaged"), "{last:?}");
        assert!(last.to_do.unwrap().contains("a start uses every volume again"));

        let good = folder.path().join("good");
        let file = good.to_str().unwrap();
        let made = crate::cli::run_with(
            ["tidegate", "volume", "create", file, "--size", "256 MiB"].map(Into::into),
        );
        assert_eq!(made, ExitCode::SUCCESS);
        let id = glance(&good).unwrap().id().0;
        let entry = json!({ "state": "offline", "reason": "it broke", "since_unix_seconds": 1 });
        let remembered = json!({ "volumes": { format!("{id:032x}"): entry } });
        fs::write(&state, remembered.to_string()).unwrap();
        let settings = settings.replace(new.to_str().unwrap(), file);
        let last = look(&subject(&settings, Root::at("/"))).pop().unwrap();
        assert!(last.found.contains("`tidegate volume forgive "), "{last:?}");
        assert!(last.to_do.unwrap().contains("if it is ill, and type the first of these commands"));

        let none = look(&subject("", Root::at("/")));
        assert_eq!((none.len(), none[0].state), (1, State::Ok));
    }
}
