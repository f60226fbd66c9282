"""The operations of plans, one module a subject. Each takes the Run first, then what stands in the plan; raises OSError.

The parameters' names are what `ocirt plan` prints. Modules that init uses import nothing in their functions.
"""
