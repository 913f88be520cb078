//! Who is a member: identity on disk, formation, joining.
