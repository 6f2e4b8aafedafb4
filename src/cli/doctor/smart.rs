//! What a drive tells of its own wear (SMART), asked of `smartctl` where that is installed.
//!
//! Its JSON is the same for NVMe and for SATA drives in what is read here (smartmontools 7 and
//! later). Bits of its exit code say what the JSON says too, so that is not looked at.

use serde::Deserialize;

use super::root::Root;

const PROGRAM: &str = "usr/sbin/smartctl";
/// Of what its maker says a drive bears, in percent: it is time to order another.
const USED_PERCENT_MAX: u64 = 90;

/// What a drive tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wear {
    /// In words, nothing wrong.
    Well(String),
    /// In words.
    Worn(String),
    /// Why not.
    Untold(String),
}

/// Asks of the drive that the kernel calls `name`; `None` where `smartctl` is not installed.
pub(super) fn ask(root: &Root, name: &str) -> Option<Wear> {
    let device = format!("/dev/{name}");
    root.exists(PROGRAM).then(|| {
        let arguments = ["--json", "--health", "--attributes", "--info", &device];
        match root.told_by(PROGRAM, &arguments) {
            Ok(text) => judge(&text),
            Err(error) => Wear::Untold(format!("smartctl: {error}")),
        }
    })
}

#[derive(Deserialize)]
struct Told {
    smart_status: Option<Status>,
    #[serde(rename = "nvme_smart_health_information_log")]
    nvme: Option<Nvme>,
    endurance_used: Option<Endurance>,
    #[serde(rename = "ata_smart_attributes", default)]
    ata: Attributes,
    smartctl: Smartctl,
}

#[derive(Deserialize)]
struct Status {
    passed: bool,
}

/// Log page 2 (NVM Express Base Specification 2.0, 5.16.1.3).
#[derive(Deserialize)]
struct Nvme {
    critical_warning: u64,
    available_spare: u64,
    available_spare_threshold: u64,
    percentage_used: u64,
    media_errors: u64,
}

#[derive(Deserialize)]
struct Endurance {
    current_percent: u64,
}

#[derive(Default, Deserialize)]
struct Attributes {
    table: Vec<Attribute>,
}

#[derive(Deserialize)]
struct Attribute {
    name: String,
    #[serde(default)]
    when_failed: String,
}

#[derive(Deserialize)]
struct Smartctl {
    #[serde(default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    string: String,
}

fn judge(text: &str) -> Wear {
    let told: Told = match serde_json::from_str(text) {
        Ok(told) => told,
        Err(error) => return Wear::Untold(format!("smartctl was not understood: {error}")),
    };
    let Some(status) = &told.smart_status else {
        let message = told.smartctl.messages.into_iter().next();
        return Wear::Untold(message.map_or("smartctl says nothing".into(), |told| told.string));
    };
    let faults = told.faults(status);
    match faults.is_empty() {
        true => Wear::Well(told.facts().join(", ")),
        false => Wear::Worn(faults.join(", ")),
    }
}

impl Told {
    fn used_percent(&self) -> Option<u64> {
        let ata = self.endurance_used.as_ref().map(|endurance| endurance.current_percent);
        self.nvme.as_ref().map(|nvme| nvme.percentage_used).or(ata)
    }

    fn faults(&self, status: &Status) -> Vec<String> {
        let mut faults = Vec::new();
        if !status.passed {
            faults.push("it says that it fails".to_owned());
        }
        if let Some(used) = self.used_percent().filter(|used| *used >= USED_PERCENT_MAX) {
            faults.push(format!("{used} % of what it bears are used up"));
        }
        if let Some(nvme) = &self.nvme {
            if nvme.critical_warning != 0 {
                faults.push(format!("it warns ({:#04x})", nvme.critical_warning));
            }
            if nvme.available_spare < nvme.available_spare_threshold {
                faults.push(format!("{} % of its spare blocks are left", nvme.available_spare));
            }
            if nvme.media_errors != 0 {
                faults.push(format!("{} times it could not read its data", nvme.media_errors));
            }
        }
        let failed = self.ata.table.iter().filter(|attribute| !attribute.when_failed.is_empty());
        faults.extend(
            failed.map(|Attribute { name, when_failed }| format!("{name} failed ({when_failed})")),
        );
        faults
    }

    fn facts(&self) -> Vec<String> {
        let mut facts = vec!["it says that it is well".to_owned()];
        facts.extend(self.used_percent().map(|used| format!("{used} % of what it bears used")));
        facts.extend(self.nvme.as_ref().map(|nvme| format!("spare {} %", nvme.available_spare)));
        facts
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{program, with};
    use super::*;

    fn nvme(fields: &str) -> String {
        let mut log = serde_json::json!({
            "critical_warning": 0, "temperature": 36, "available_spare": 100,
            "available_spare_threshold": 10, "percentage_used": 4, "media_errors": 0,
        });
        let other: serde_json::Value = serde_json::from_str(fields).unwrap();
        log.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
        let log = serde_json::json!({
            "smartctl": { "exit_status": 0 }, "smart_status": { "passed": true },
            "nvme_smart_health_information_log": log,
        });
        log.to_string()
    }

    #[test]
    fn what_a_drive_tells_of_its_wear_is_judged() {
        let well =
            Wear::Well("it says that it is well, 4 % of what it bears used, spare 100 %".into());
        assert_eq!(judge(&nvme("{}")), well);
        for (fields, words) in [
            (r#"{"percentage_used": 97}"#, "97 % of what it bears are used up"),
            (r#"{"critical_warning": 4}"#, "it warns (0x04)"),
            (r#"{"available_spare": 9}"#, "9 % of its spare blocks are left"),
            (r#"{"media_errors": 2}"#, "2 times it could not read its data"),
        ] {
            assert_eq!(judge(&nvme(fields)), Wear::Worn(words.into()), "{fields}");
        }
        let ata = |passed: bool, failed: &str| {
            format!(
                r#"{{"smartctl": {{"exit_status": 0}}, "smart_status": {{"passed": {passed}}},
                "ata_smart_attributes": {{"table": [{{"id": 5, "name": "Reallocated_Sector_Ct",
                "when_failed": "{failed}", "raw": {{"value": 0}}}}]}}}}"#
            )
        };
        assert_eq!(judge(&ata(true, "")), Wear::Well("it says that it is well".into()));
        let worn = Wear::Worn("it says that it fails, Reallocated_Sector_Ct failed (now)".into());
        assert_eq!(judge(&ata(false, "now")), worn);
    }

    #[test]
    fn a_drive_that_tells_nothing_is_untold_with_what_smartctl_says_of_it() {
        let says = r#"{"smartctl": {"exit_status": 1, "messages":
            [{"string": "/dev/vda: Unable to detect device type", "severity": "error"}]}}"#;
        let told = "/dev/vda: Unable to detect device type";
        assert_eq!(judge(says), Wear::Untold(told.into()));
        assert!(matches!(judge("usage: smartctl"), Wear::Untold(_)));
    }

    #[test]
    fn smartctl_is_asked_of_the_drive_where_it_is_installed() {
        let (folder, root) = with(&[("proc/x", "")]);
        assert_eq!(ask(&root, "nvme0n1"), None);
        let script = format!("[ \"$5\" = /dev/nvme0n1 ] || exit 1\ncat <<'E'\n{}\nE\n", nvme("{}"));
        program(folder.path(), PROGRAM, &script);
        assert!(matches!(ask(&root, "nvme0n1"), Some(Wear::Well(_))));
        assert!(matches!(ask(&root, "sda"), Some(Wear::Untold(_))));
    }
}
