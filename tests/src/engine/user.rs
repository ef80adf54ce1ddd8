//! An ordinary user with subordinate ids and a cgroup, as systemd makes them for a login.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;

use anyhow::{Context, Result};

use crate::init::CGROUPS;

/// The id of the user and of the user's group.
pub const ID: u32 = 1000;

/// Runs a command line as the user, in the user's cgroup.
pub const BECOME: &str = "cd /sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/init.scope && \
                          echo $$ > cgroup.procs && \
                          export HOME=/home/lab XDG_RUNTIME_DIR=/run/user/1000 && cd && \
                          exec /usr/bin/setpriv --reuid=1000 --regid=1000 --clear-groups \"$@\"";

/// The cgroup of the user's containers. As there is no systemd, its name must not resemble that of a systemd slice.
pub const CONTAINERS: &str = "/user.slice/user-1000.slice/user@1000.service/podman";

/// Makes the user at the first use.
pub fn make() -> Result<()> {
    if Path::new("/home/lab").exists() {
        return Ok(());
    }
    fs::write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\nlab:x:1000:1000::/home/lab:/bin/sh\n")?;
    fs::write("/etc/group", "root:x:0:\nlab:x:1000:\n")?;
    for file in ["/etc/subuid", "/etc/subgid"] {
        fs::write(file, "lab:100000:65536\n")?;
    }
    for folder in ["/home/lab", "/run/user/1000"] {
        fs::create_dir_all(folder)?;
        chown(folder, Some(ID), Some(ID))?;
    }
    let mut cgroup = CGROUPS.to_owned();
    for name in ["user.slice", "user-1000.slice", "user@1000.service"] {
        fs::write(format!("{cgroup}/cgroup.subtree_control"), "+memory +pids")?;
        cgroup = format!("{cgroup}/{name}");
        fs::create_dir_all(&cgroup).with_context(|| format!("cannot make {cgroup}"))?;
    }
    for cgroup in [cgroup.clone(), format!("{cgroup}/init.scope")] {
        fs::create_dir_all(&cgroup)?;
        for file in ["", "/cgroup.procs", "/cgroup.subtree_control", "/cgroup.threads"] {
            chown(format!("{cgroup}{file}"), Some(ID), Some(ID))?;
        }
    }
    Ok(())
}
