"""The style sheet, with @role where a theme puts its colour: borders, radii and padding only."""

STYLE = """
QMainWindow::separator { background: @window; width: 8px; height: 8px; }
QToolBar { background: @surface; border: 0; border-bottom: 1px solid @border; padding: 6px 10px; spacing:
    4px; }
QToolBar::separator { background: @border; width: 1px; margin: 6px 8px; }
QToolButton { border: 1px solid transparent; border-radius: 6px; padding: 5px 9px; color: @text; }
QToolBar QToolButton { padding: 5px 7px; }
QToolButton:hover { background: @hover; }
QToolButton:pressed { background: @border; }
QToolButton:checked { background: @accent_soft; }
QToolButton:focus { border-color: @accent; }
QToolButton:disabled { color: @faint; }
QToolButton[primary="true"] { background: @accent; color: @on_accent; font-weight: 600; }
QToolButton[primary="true"]:hover { background: @accent_hover; }
QToolButton[primary="true"]:disabled { background: @grid; color: @faint; }
QToolButton::menu-indicator { image: none; }
QToolBar QToolButton[selector="true"] { border: 1px solid @border; background: @surface;
    padding: 5px 26px 5px 9px; }
QToolBar QToolButton[selector="true"]:hover { border-color: @faint; background: @hover; }
QToolButton[selector="true"]::menu-indicator { image: url(@chevron); width: 14px; height: 14px;
    subcontrol-origin: padding; subcontrol-position: center right; right: 7px; }
QPushButton { background: @surface; border: 1px solid @border; border-radius: 6px; padding: 6px 14px;
    min-height: 18px; }
QPushButton:hover { background: @hover; }
QPushButton:pressed { background: @border; }
QPushButton:focus { border-color: @accent; }
QPushButton:disabled { color: @faint; background: @window; }
QPushButton:default, QPushButton[primary="true"] { background: @accent; color: @on_accent; border-color:
    @accent; font-weight: 600; }
QPushButton:default:hover, QPushButton[primary="true"]:hover { background: @accent_hover; border-color:
    @accent_hover; }
QPushButton:default:focus, QPushButton[primary="true"]:focus { border-color: @text; }
QPushButton:default:disabled, QPushButton[primary="true"]:disabled { background: @grid; color: @faint;
    border-color: @grid; }
QMenuBar { background: @surface; padding: 2px 6px; }
QMenuBar::item { background: transparent; padding: 4px 9px; border-radius: 4px; }
QMenuBar::item:selected { background: @hover; }
QMenu { background: @surface; border: 1px solid @border; padding: 4px; }
QMenu::item { padding: 6px 24px 6px 10px; border-radius: 4px; }
QMenu::item:selected { background: @accent_soft; color: @text; }
QMenu::item:disabled { color: @faint; }
QMenu::separator { height: 1px; background: @border; margin: 4px 6px; }
CheckMenu::item { padding-left: 10px; }
CheckMenu::indicator { width: 14px; height: 14px; margin-left: 8px; border: 1px solid @faint;
    border-radius: 4px; background: @surface; }
CheckMenu::indicator:checked { background: @accent; border-color: @accent; image: url(@check); }
CheckMenu::indicator:checked:disabled { background: @faint; border-color: @faint; }
QMenu::icon { padding-left: 8px; }
QFrame[card="true"] { background: @surface; border: 1px solid @border; border-radius: 8px; }
QFrame[card="true"][focused="true"] { border-color: @accent; }
QFrame[toast="true"] { background: @raised; border: 1px solid @border; border-radius: 8px; }
QLabel[role="title"] { font-weight: 600; color: @text; }
QLabel[role="heading"] { font-size: 16px; font-weight: 600; color: @text; }
QLabel[role="muted"] { color: @muted; }
QLabel[role="caption"] { color: @muted; font-size: 11px; }
QLabel[role="caution"] { color: @warn; font-size: 11px; }
QLabel[role="kpi"] { font-size: 21px; font-weight: 600; color: @text; }
QLabel[role="good"] { color: @ok; font-weight: 600; font-size: 12px; }
QLabel[role="warn"] { color: @warn; font-weight: 600; font-size: 12px; }
QLabel[role="bad"] { color: @bad; font-weight: 600; font-size: 12px; }
QLabel[role="error"] { color: @bad; }
QTableView, QListView, QTreeView { background: @surface; alternate-background-color: @alt; border: 0;
    gridline-color: @border; selection-background-color: @accent_soft; selection-color: @text; outline: 0; }
QTableView::item { padding-left: 6px; padding-right: 6px; }
QListView::item { padding: 6px 8px; border-radius: 4px; }
QListView::item:hover { background: @hover; }
QListView::item:selected { background: @accent_soft; color: @text; }
QTreeView::item { padding: 4px 8px 4px 5px; }
QDialog QListView, QDialog QTableView, QDialog QTreeView { border: 1px solid @border; border-radius: 6px; }
QDialog#palette { background: @surface; border: 1px solid @border; }
QDialog#palette QListView { border: 0; }
QHeaderView { background: @surface; }
QHeaderView::section { background: @surface; color: @muted; border: 0; border-bottom: 1px solid @border;
    padding: 6px 8px; font-weight: 600; font-size: 11px; }
QTableCornerButton::section { background: @surface; border: 0; border-bottom: 1px solid @border; }
QHeaderView::section:vertical { border: 0; padding: 0 8px; font-weight: 400; font-size: 13px; }
QLineEdit, QComboBox, QAbstractSpinBox { background: @surface; border: 1px solid @border; border-radius:
    6px;
    padding: 5px 8px; min-height: 18px; selection-background-color: @accent; selection-color: @on_accent; }
QPlainTextEdit, QTextBrowser, QTextEdit { background: @surface; border: 1px solid @border; border-radius:
    6px;
    selection-background-color: @accent; selection-color: @on_accent; }
QPlainTextEdit[flat="true"], QTextBrowser[flat="true"] { border: 0; }
QLineEdit:focus, QComboBox:focus, QAbstractSpinBox:focus, QPlainTextEdit:focus { border-color: @accent; }
QLineEdit:disabled, QComboBox:disabled, QAbstractSpinBox:disabled { color: @faint; background: @window; }
QLineEdit[invalid="true"] { border-color: @bad; }
QAbstractSpinBox::up-button, QAbstractSpinBox::down-button { border: 0; background: transparent;
    width: 20px; }
QAbstractSpinBox::up-arrow { image: url(@chevron-up); width: 12px; height: 12px; }
QAbstractSpinBox::down-arrow { image: url(@chevron); width: 12px; height: 12px; }
QComboBox::drop-down { border: 0; width: 22px; }
QComboBox::down-arrow { image: url(@chevron); width: 14px; height: 14px; }
QComboBox QAbstractItemView { background: @surface; border: 1px solid @border; padding: 4px;
    selection-background-color: @accent_soft; selection-color: @text; }
QCheckBox { spacing: 8px; }
QCheckBox::indicator, QListView::indicator { width: 16px; height: 16px; border: 1px solid @faint;
    border-radius: 4px; background: @surface; }
QCheckBox::indicator:checked, QListView::indicator:checked { background: @accent;
    border-color: @accent; image: url(@check); }
QCheckBox::indicator:focus { border-color: @accent; }
QTabWidget::pane { border: 0; }
QTabBar { qproperty-drawBase: 0; }
QTabBar::tab { background: transparent; color: @muted; padding: 8px 14px; margin-right: 2px; border: 0;
    border-bottom: 2px solid transparent; }
QTabBar::tab:hover { color: @text; }
QTabBar::tab:selected { color: @accent; border-bottom: 2px solid @accent; font-weight: 600; }
QTabBar::tab:focus { color: @text; }
QStatusBar { background: @surface; border-top: 1px solid @border; color: @muted; }
QStatusBar::item { border: 0; }
QStatusBar QLabel { color: @muted; }
QProgressBar { background: @grid; border: 0; border-radius: 3px; max-height: 6px; min-height: 6px; }
QProgressBar::chunk { background: @accent; border-radius: 3px; }
QToolTip { background: @raised; color: @text; border: 1px solid @border; padding: 4px 6px; }
QScrollArea { background: transparent; border: 0; }
QScrollBar:vertical { background: transparent; width: 10px; margin: 0; }
QScrollBar::handle:vertical { background: @border; border-radius: 3px; min-height: 30px; margin: 2px; }
QScrollBar::handle:vertical:hover { background: @faint; }
QScrollBar:horizontal { background: transparent; height: 10px; margin: 0; }
QScrollBar::handle:horizontal { background: @border; border-radius: 3px; min-width: 30px; margin: 2px; }
QScrollBar::handle:horizontal:hover { background: @faint; }
QScrollBar::add-line, QScrollBar::sub-line, QScrollBar::add-page, QScrollBar::sub-page {
    background: none; border: 0; height: 0; width: 0; }
QAbstractScrollArea::corner { background: transparent; border: 0; }
QSplitter::handle { background: transparent; }
QDockWidget { titlebar-close-icon: none; titlebar-normal-icon: none; }
"""
