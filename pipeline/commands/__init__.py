"""The commands that are no runs: check, plan, report, reread and remove. No run needs them."""
