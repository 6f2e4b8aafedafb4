//! The volumes, as a start would find them: what it would refuse, leave out, or have failed before.

use super::Subject;
use super::finding::Finding;
use crate::appliance::{LeftOut, look_at_failed, look_at_volumes};
use crate::config::VolumeKind;
use crate::config::units::bytes_about;

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
    let failed = look_at_failed(&subject.config);
    let told = ssd.state_fault().into_iter().chain(failed);
    findings.extend(told.map(|text| Finding::warn(text, "as it says")));
    findings
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::finding::State;
    use super::super::root::Root;
    use super::super::tests::subject;
    use super::*;

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

        let none = look(&subject("", Root::at("/")));
        assert_eq!((none.len(), none[0].state), (1, State::Ok));
    }
}
