"""The subcommands: one module for each, with its flags, its help and its policy.

A module of this package decides which configuration a subcommand uses and whether it
starts ranks.  It then calls a function of ``jobs``, ``records``, ``rank_table`` or
``report``, which does the work.  It imports that function when it is called, because
the help and wrong flags must not wait seconds for TensorFlow.
"""
