//! The memory of this process.

use std::sync::OnceLock;
use std::time::Duration;
use std::{fs, io};

use rustix::mm::{Advice, madvise};

/// How often to [`release`] memory: most of what happens seldom needs what nothing else needs.
pub(crate) const INTERVAL: Duration = Duration::from_secs(60);

/// What is at least as large has a mapping of its own, and as much is returned from the end of a heap. In bytes, the
/// value with which glibc begins.
#[cfg(target_env = "gnu")]
const LARGE: libc::c_int = 128 << 10;

/// Lets the allocator return memory as soon as it is free. glibc would raise the thresholds for this to the size of
/// what was large once, such as the kernel's BTF types at the start.
pub(crate) fn configure() {
    // Where huge pages are always on, khugepaged makes one of each 2 MiB of a heap in which any page is used, and so
    // takes back what was returned. The programs that this one starts inherit this.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
    #[cfg(target_env = "gnu")]
    for threshold in [libc::M_MMAP_THRESHOLD, libc::M_TRIM_THRESHOLD] {
        set_option(threshold, LARGE);
    }
}

/// Lets threads that seldom allocate share one heap. Each would have its own, which keeps some of what was freed.
pub(crate) fn share_heap() {
    #[cfg(target_env = "gnu")]
    set_option(libc::M_ARENA_MAX, 1);
}

#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "mallopt(3) is a C function")]
fn set_option(option: libc::c_int, value: libc::c_int) {
    // SAFETY: mallopt(3) takes any numbers, and can be called by any thread at any time.
    unsafe { libc::mallopt(option, value) };
}

/// Returns memory to the system that was needed only until now, for example during the start or in a flood.
pub(crate) fn release() {
    release_heap();
    if let Err(error) = release_program() {
        tracing::debug!(%error, "the pages of the program that are not needed any more stay mapped");
    }
}

/// glibc would keep what was freed.
#[cfg_attr(target_env = "gnu", expect(unsafe_code, reason = "malloc_trim(3) is a C function"))]
fn release_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim(3) can be called by any thread at any time, and does not touch memory that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Unmaps the pages of the program itself. Those that are needed again are mapped again, of its file.
#[expect(unsafe_code, reason = "madvise(2) can change what memory has in it")]
fn release_program() -> io::Result<()> {
    // They stay where they are.
    static PAGES: OnceLock<Vec<(usize, usize)>> = OnceLock::new();
    let pages = match PAGES.get() {
        Some(pages) => pages,
        None => {
            let program = fs::read_link("/proc/self/exe")?;
            let pages = pages_of_file(&fs::read_to_string("/proc/self/smaps")?, &program.to_string_lossy());
            PAGES.get_or_init(|| pages)
        }
    };
    for &(first, end) in pages {
        // SAFETY: nobody can write to these pages, and none of them was written to before, as the loader writes to
        // those with addresses. So each has what the file has, which the kernel reads again.
        unsafe { madvise(std::ptr::without_provenance_mut(first), end - first, Advice::LinuxDontNeed)? };
    }
    Ok(())
}

/// The addresses of the mappings of `program` in which only what is in its file can be: they are not writable, and the
/// kernel has copied no page of them for a writer (`Anonymous`, proc_pid_smaps(5)).
fn pages_of_file(smaps: &str, program: &str) -> Vec<(usize, usize)> {
    let (mut pages, mut mapping) = (Vec::new(), None);
    for line in smaps.lines() {
        match line.split_once(':') {
            Some(("Anonymous", size)) if size.trim() == "0 kB" => pages.extend(mapping.take()),
            Some((name, _)) if !name.contains(' ') => {}
            _ => mapping = read_only(line, program),
        }
    }
    pages
}

/// The addresses in the first line about a mapping, if `program` is mapped there and cannot be written to.
fn read_only(line: &str, program: &str) -> Option<(usize, usize)> {
    let mut fields = line.splitn(6, ' ');
    let (first, end) = fields.next()?.split_once('-')?;
    let is_read_only = matches!(fields.next()?, "r--p" | "r-xp") && fields.nth(3)?.trim_start() == program;
    is_read_only.then_some((usize::from_str_radix(first, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_in_the_file_of_the_program_is_released() {
        const PROGRAM: &str = "/usr/bin/detector";
        let of = |permissions: &str, path: &str, anonymous: &str| {
            format!(
                "55d0-55f0 {permissions} 00750000 fe:00 1234       {path}\nSize:  4 kB\nRss:  0 kB\n\
                Anonymous:             {anonymous} kB\nVmFlags: rd ex mr mw me\n"
            )
        };
        for permissions in ["r--p", "r-xp"] {
            assert_eq!(pages_of_file(&of(permissions, PROGRAM, "0"), PROGRAM), [(0x55d0, 0x55f0)]);
            assert!(pages_of_file(&of(permissions, PROGRAM, "4"), PROGRAM).is_empty());
            assert!(pages_of_file(&of(permissions, "/usr/lib/x.so", "0"), PROGRAM).is_empty());
        }
        for permissions in ["rw-p", "rwxp", "r--s", "---p"] {
            assert!(pages_of_file(&of(permissions, PROGRAM, "0"), PROGRAM).is_empty());
        }
        let all = of("rw-p", PROGRAM, "8") + &of("r-xp", PROGRAM, "0") + &of("r--p", PROGRAM, "12") + "7f-80 r-xp";
        assert_eq!(pages_of_file(&all, PROGRAM), [(0x55d0, 0x55f0)]);
    }

    #[test]
    fn no_huge_pages_are_made_of_the_heap() {
        configure();
        let status = fs::read_to_string("/proc/self/status").expect("it can be read");
        assert!(status.lines().any(|line| line == "THP_enabled:\t0"), "{status}");
    }

    #[test]
    fn a_program_goes_on_after_its_pages_were_released() {
        let mapped = || {
            let program = fs::read_link("/proc/self/exe").expect("it can be read");
            let smaps = fs::read_to_string("/proc/self/smaps").expect("it can be read");
            let mappings = smaps.split("VmFlags").filter(|mapping| mapping.contains(&*program.to_string_lossy()));
            let resident = |mapping: &str| {
                let line = mapping.lines().find_map(|line| line.strip_prefix("Rss:")).expect("it has a size");
                line.trim().trim_end_matches(" kB").parse::<u64>().expect("it is a number")
            };
            mappings.map(resident).sum::<u64>()
        };
        let before = mapped();
        release();
        assert!(mapped() < before);
    }
}
