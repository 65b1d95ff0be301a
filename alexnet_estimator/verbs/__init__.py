"""The subcommands: one module for each, with its flags, its help and its policy.

A module here decides which configuration a command uses and whether ranks are started,
and then calls the function of ``jobs``, ``records``, ``rank_table`` or ``report`` that
does the work.  That function is imported when it is needed, because TensorFlow takes
seconds to load: the help and mistakes are answered without it.
"""
