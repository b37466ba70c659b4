#!/usr/bin/perl
# The status page in a real browser: a pair appears on it, its bytes grow, it ends and stands among the last ones with its
# reason; nothing on the page fails, and a proxy that is gone is shown as gone.
use strict;
use warnings;
use HyperTest;
use ProxyTest;
use Test::More;

my ($none) = run_program([ 'sh', '-c', 'command -v chromium' ]);
plan skip_all => 'chromium is not installed' if $none;

my $p = proxy(workers => 2, log_level => 'info', outer => qq(metrics = { bind_address = "localhost:0"; };\n));
my $url = 'http://127.0.0.1:' . $p->{d}->ready('metrics_port') . '/';

# What the browser shows after its scripts have run for a while: (whole text of the document, rows of each table)
sub shown {
	my ($exit, $out, $err) = run_program([ 'chromium', '--headless=new', '--no-sandbox', '--disable-gpu', '--no-proxy-server',
			'--user-data-dir=' . tmp() . '/browser', '--virtual-time-budget=4000', '--dump-dom', $url ], timeout => 60 * slow_factor());
	is($exit, 0, 'the browser runs') or diag $err;
	my %rows;
	for my $card ($out =~ m{<div class="card" id="table-(.*?)</table>}gs) {
		my ($id) = $card =~ /^(\w+)/;
		my ($body) = $card =~ m{<tbody>(.*)}s;
		$rows{$id} = [ map { [ m{<td[^>]*>(.*?)</td>}gs ] } ($body // '') =~ m{<tr>(.*?)</tr>}gs ];
	}
	return ($out, \%rows);
}

my ($dom, $rows) = shown();
like($dom, qr{<span id="name">public-proxy-1\.ga</span>}, 'the proxy has its name');
like($dom, qr{id="dot" class="dot good"}, 'and is well');
is_deeply($rows->{pairs}, [ ['none'] ], 'no pair yet');
is(scalar @{ $rows->{workers} }, 2, 'two workers');
like($dom, qr{<svg [^>]*aria-label="Throughput"}, 'a graph');

my ($a, $b, $session) = $p->pair;
send_all($a, 'x' x 4096);
read_exactly($b, 4096);
($dom, $rows) = shown();
my ($row) = grep { $_->[0] eq $session } @{ $rows->{pairs} };
ok($row, 'the pair appears');
is("$row->[1] $row->[2]", 'hd-1 hd-2', 'with both operators');
like(join(' ', @$row), qr/4(?:\.00)? KiB/, 'and what it has moved');

send_all($a, 'x' x 1_000_000);
read_exactly($b, 1_000_000);
($dom, $rows) = shown();
($row) = grep { $_->[0] eq $session } @{ $rows->{pairs} };
like(join(' ', @$row), qr/981 KiB/, 'it grows');

close $_ for $a, $b;
ok($p->wait_ended($session), 'it ends');
($dom, $rows) = shown();
is_deeply($rows->{pairs}, [ ['none'] ], 'it is gone from the pairs');
($row) = grep { $_->[0] eq $session } @{ $rows->{last} };
is($row->[3], 'closed', 'and stands among the last ones with its reason');
hyper_done();
