"""Tables and pictures of what an experiment found.

Nothing here trains or stitches: arrays of scores, images and latents come in; tables, figures
and a report go out. Files are written in one step, and the same input gives the same bytes.
"""

from relrep_jax.report.figures import (
    intervals,
    latent_spaces,
    learning_curves,
    pair_grid,
    project_jointly,
    reconstructions,
    save,
    scatter,
)
from relrep_jax.report.files import atomic_open, atomic_write_bytes, atomic_write_text
from relrep_jax.report.markdown import environment, markdown_image, write_report
from relrep_jax.report.paired_grids import (
    PAIRED_GRID_COLUMNS,
    compare_grids,
    paired_grids_sheet,
)
from relrep_jax.report.progress import progress
from relrep_jax.report.sheets import (
    PAIRED_HEADER,
    PairedTest,
    Sheet,
    paired_cells,
    paired_test,
    percent,
    sheet_markdown,
    sheet_terminal,
)
from relrep_jax.report.tables import (
    METRICS,
    STITCHING_COLUMNS,
    SUMMARY_COLUMNS,
    Grid,
    Metric,
    Summary,
    describe,
    describe_excluded,
    get_metric,
    markdown_table,
    read_stitching_csv,
    summarize,
    terminal_table,
    write_csv,
    write_json,
    write_stitching_csv,
    write_stitching_json,
    write_summary_csv,
    write_summary_json,
)

__all__ = [
    "PAIRED_GRID_COLUMNS",
    "compare_grids",
    "paired_grids_sheet",
    "METRICS",
    "PAIRED_HEADER",
    "STITCHING_COLUMNS",
    "SUMMARY_COLUMNS",
    "Grid",
    "Metric",
    "PairedTest",
    "Sheet",
    "Summary",
    "atomic_open",
    "atomic_write_bytes",
    "atomic_write_text",
    "describe",
    "describe_excluded",
    "environment",
    "get_metric",
    "intervals",
    "latent_spaces",
    "learning_curves",
    "markdown_image",
    "markdown_table",
    "pair_grid",
    "paired_cells",
    "paired_test",
    "percent",
    "progress",
    "project_jointly",
    "read_stitching_csv",
    "reconstructions",
    "save",
    "scatter",
    "sheet_markdown",
    "sheet_terminal",
    "summarize",
    "terminal_table",
    "write_csv",
    "write_json",
    "write_report",
    "write_stitching_csv",
    "write_stitching_json",
    "write_summary_csv",
    "write_summary_json",
]
