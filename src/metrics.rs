//! What a member counts and measures, under etcd's names where etcd has one, else `ordinal_…`.
