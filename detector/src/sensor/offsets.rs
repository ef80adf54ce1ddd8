//! The values of the probes' layout globals on one kernel: the table of [`detector_common::offsets`], resolved.

use super::btf::{Btf, Error};

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// The global of the BPF object that takes the value.
    pub global: &'static str,
    /// The kernel struct.
    pub structure: &'static str,
    /// The member whose offset is the value, see [`Btf::member_offset`]. `None`: the value is the size of the struct.
    pub member: Option<&'static str>,
}

macro_rules! rows {
    (@member sizeof) => { None };
    (@member $member:literal) => { Some($member) };
    ($($global:ident: $structure:literal $member:tt;)*) => {
        /// The table.
        pub const ROWS: &[Row] = &[$(
            Row { global: stringify!($global), structure: $structure, member: rows!(@member $member) },
        )*];
    };
}
detector_common::for_each_offset!(rows);

impl Row {
    /// The value on a kernel, in bytes.
    ///
    /// # Errors
    ///
    /// The kernel has no such struct or member.
    pub fn resolve(&self, kernel: &Btf) -> Result<u64, Error> {
        match self.member {
            Some(member) => kernel.member_offset(self.structure, member),
            None => kernel.struct_size(self.structure),
        }
    }
}

/// Each global with its value on a kernel.
///
/// # Errors
///
/// [`Error::Missing`] with everything that this kernel lacks.
pub fn resolve(kernel: &Btf) -> Result<Vec<(&'static str, u64)>, Error> {
    let mut missing = Vec::new();
    let mut values = Vec::with_capacity(ROWS.len());
    for row in ROWS {
        match row.resolve(kernel) {
            Ok(value) => values.push((row.global, value)),
            Err(why) => missing.push(why),
        }
    }
    if missing.is_empty() { Ok(values) } else { Err(Error::Missing(missing)) }
}
