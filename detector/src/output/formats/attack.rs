//! What MITRE ATT&CK calls the techniques that findings have.

/// A tactic: its id, and its name.
pub(super) struct Tactic(pub(super) &'static str, pub(super) &'static str);

const EXECUTION: Tactic = Tactic("TA0002", "Execution");
const PERSISTENCE: Tactic = Tactic("TA0003", "Persistence");
const PRIVILEGE_ESCALATION: Tactic = Tactic("TA0004", "Privilege Escalation");
const DEFENSE_EVASION: Tactic = Tactic("TA0005", "Defense Evasion");
const IMPACT: Tactic = Tactic("TA0040", "Impact");

/// Techniques by id, each with its name and the tactic that findings show. What follows a dot is a part of a technique.
const TECHNIQUES: &[(&str, &str, Tactic)] = &[
    ("T1036", "Masquerading", DEFENSE_EVASION),
    ("T1036.005", "Match Legitimate Resource Name or Location", DEFENSE_EVASION),
    ("T1059", "Command and Scripting Interpreter", EXECUTION),
    ("T1059.004", "Unix Shell", EXECUTION),
    ("T1070", "Indicator Removal", DEFENSE_EVASION),
    ("T1070.004", "File Deletion", DEFENSE_EVASION),
    ("T1070.006", "Timestomp", DEFENSE_EVASION),
    ("T1129", "Shared Modules", EXECUTION),
    ("T1222", "File and Directory Permissions Modification", DEFENSE_EVASION),
    ("T1222.002", "Linux and Mac File and Directory Permissions Modification", DEFENSE_EVASION),
    ("T1548", "Abuse Elevation Control Mechanism", PRIVILEGE_ESCALATION),
    ("T1548.001", "Setuid and Setgid", PRIVILEGE_ESCALATION),
    ("T1554", "Compromise Host Software Binary", PERSISTENCE),
    ("T1562", "Impair Defenses", DEFENSE_EVASION),
    ("T1562.001", "Disable or Modify Tools", DEFENSE_EVASION),
    ("T1564", "Hide Artifacts", DEFENSE_EVASION),
    ("T1564.013", "Bind Mounts", DEFENSE_EVASION),
    ("T1565", "Data Manipulation", IMPACT),
    ("T1565.001", "Stored Data Manipulation", IMPACT),
    ("T1609", "Container Administration Command", EXECUTION),
    ("T1611", "Escape to Host", PRIVILEGE_ESCALATION),
    ("T1620", "Reflective Code Loading", DEFENSE_EVASION),
];

/// The id of the technique that this is a part of, or its own one.
pub(super) fn whole(id: &str) -> &str {
    id.split_once('.').map_or(id, |(whole, _)| whole)
}

/// The name of a technique, if it is known.
pub(super) fn name(id: &str) -> Option<&'static str> {
    TECHNIQUES.iter().find(|(known, ..)| *known == id).map(|(_, name, _)| *name)
}

/// The tactic of a technique, if it is known.
pub(super) fn tactic(id: &str) -> Option<&'static Tactic> {
    TECHNIQUES.iter().find(|(known, ..)| *known == id).map(|(_, _, tactic)| tactic)
}

/// The page about a technique.
pub(super) fn page(id: &str) -> String {
    format!("https://attack.mitre.org/techniques/{}/", id.replace('.', "/"))
}
