//! The schemas of the formats that the detector converts its lines to. They come from packages that others have made,
//! so that the tests check the formats and not our idea of them.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use tempfile::TempDir;

use crate::{project, setup, shell};

/// Packages for Python. Falco's needs the last version of the library that reads such old generated code.
const PYTHON: [&str; 3] = ["ocsf-json-schema==1.2.0", "falco==0.4.0", "protobuf==3.20.3"];

/// The package for Node.js.
const NODE: &str = "@elastic/ecs@9.4.0";

/// Writes the JSON Schemas of classes of OCSF. Its arguments are the version, the classes, and their profiles.
const OCSF: &str = r#"
import json, sys
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema
version, classes, profiles = sys.argv[1:]
schema = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=version))
def of(uid):
    return schema.get_class_schema(class_name=schema.lookup_class_name_from_uid(int(uid)), profiles=profiles.split(","))
print(json.dumps({uid: of(uid) for uid in classes.split(",")}))
"#;

/// The version of OCSF, its classes, and the profiles that the events claim.
const OCSF_ARGUMENTS: [&str; 3] =
    ["1.8.0", "0,1001,1007,2004,6002,6008", "container,host,linux/linux_users,security_control"];

/// Writes the members of Falco's alerts, and the names that some of them have, as Falco's own messages declare them.
const FALCO: &str = r#"
import json, os, sys
sys.path.insert(0, os.path.join(os.environ["PYTHONPATH"], "falco", "schema"))
import outputs_pb2, schema_pb2
print(json.dumps({
    "members": [field.name for field in outputs_pb2.response.DESCRIPTOR.fields],
    "priorities": list(schema_pb2.priority.DESCRIPTOR.values_by_name),
    "sources": list(schema_pb2.source.DESCRIPTOR.values_by_name),
}))
"#;

/// Writes the fields of ECS.
const ECS: &str = "console.log(JSON.stringify(require('@elastic/ecs').EcsFlat))";

/// The directory with the schemas.
///
/// # Errors
///
/// The cache cannot be made.
pub fn folder() -> Result<PathBuf> {
    Ok(project::cache()?.join("schemas"))
}

/// Fetches what the cache lacks. Fast and silent if it lacks nothing.
///
/// # Errors
///
/// A package cannot be fetched, or the cache cannot be written.
pub fn fetch() -> Result<()> {
    let folder = folder()?;
    let wanted = format!("{PYTHON:?} {NODE} {OCSF_ARGUMENTS:?}{OCSF}{FALCO}{ECS}");
    let is_complete = || fs::read_to_string(folder.join("wanted")).is_ok_and(|made_of| made_of == wanted);
    if is_complete() {
        return Ok(());
    }
    setup::fetchers()?;
    let _lock = project::lock_cache()?;
    // Another process may have fetched them in the meantime.
    if is_complete() {
        return Ok(());
    }
    let partial = TempDir::with_prefix_in("partial-", project::cache()?)?;
    let (packages, made) = (partial.path().join("packages"), partial.path().join("made"));
    fs::create_dir_all(&made)?;

    setup::pip("fetching the schemas of OCSF and Falco", &PYTHON, &packages)?;
    let python = |script: &str| {
        let mut python = Command::new("python3");
        python.args(["-c", script]).env("PYTHONPATH", &packages);
        python
    };
    fs::write(made.join("ocsf.json"), shell::output(python(OCSF).args(OCSF_ARGUMENTS))?)?;
    fs::write(made.join("falco.json"), shell::output(&mut python(FALCO))?)?;

    shell::long(
        "fetching the fields of ECS",
        Command::new("npm").args(["install", "--silent", "--prefix"]).arg(&packages).arg(NODE),
    )?;
    let fields = shell::output(Command::new("node").args(["-e", ECS]).current_dir(&packages))?;
    fs::write(made.join("ecs.json"), fields)?;

    fs::write(made.join("wanted"), wanted)?;
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    Ok(fs::rename(&made, &folder)?)
}
