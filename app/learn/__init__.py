"""The derivation as data: its steps, formulas with today's numbers, figures, questions. Shows nothing itself."""
